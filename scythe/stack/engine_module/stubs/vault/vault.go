// Package vault stands in for the client of a store of secrets, which is never used here.
package vault

import (
	"context"
	"errors"
	"time"
)

type (
	ClientOption  any
	RequestOption any
	pem           struct{ FromBytes []byte }

	TLSConfiguration struct{ ServerCertificate, ClientCertificate, ClientCertificateKey pem }

	answer struct {
		Auth struct{ ClientToken string }
		Data struct {
			Data, Metadata map[string]any
			Keys           []string
		}
	}
	login  = func(context.Context, any, ...RequestOption) (*answer, error)
	look   = func(context.Context, string, ...RequestOption) (*answer, error)
	change = func(context.Context, string, any, ...RequestOption) (*answer, error)

	Client struct {
		SetToken func(string) error
		Auth     struct{ AppRoleLogin login }
		Secrets  struct {
			KvV2List, KvV2Read, KvV2DeleteMetadataAndAllVersions look
			KvV2Write, KvV2WriteMetadata                         change
		}
	}
)

func New(...ClientOption) (*Client, error) { return nil, errors.New("this S3 server has no Vault") }

func IsErrorStatus(error, int) bool { return false }

func WithAddress(string) ClientOption { return nil }

func WithRequestTimeout(time.Duration) ClientOption { return nil }

func WithTLS(TLSConfiguration) ClientOption { return nil }

func WithMountPath(string) RequestOption { return nil }

func WithNamespace(string) RequestOption { return nil }
