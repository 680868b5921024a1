module github.com/tink-crypto/tink-go-gcpkms

go 1.26
