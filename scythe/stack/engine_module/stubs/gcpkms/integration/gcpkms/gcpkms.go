// Package gcpkms stands in for the client of a cloud's key store, which is never used here.
package gcpkms

import (
	"context"
	"errors"

	"github.com/tink-crypto/tink-go/core/registry"
)

func NewClientWithOptions(context.Context, string, ...any) (registry.KMSClient, error) {
	return nil, errors.New("this engine has no Cloud KMS")
}
