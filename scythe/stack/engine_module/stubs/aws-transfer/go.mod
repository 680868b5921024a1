module github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager

go 1.26
