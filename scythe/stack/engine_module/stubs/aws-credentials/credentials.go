// Package credentials stands in for the keys of another S3 server, which is never asked here.
package credentials

import "github.com/aws/aws-sdk-go-v2/aws"

func NewStaticCredentialsProvider(_, _, _ string) aws.CredentialsProvider { return nil }
