// Package schema stands in for what a store of secrets is asked.
package schema

type (
	AppRoleLoginRequest      struct{ RoleId, SecretId string }
	KvV2WriteRequest         struct{ Data, Options map[string]any }
	KvV2WriteMetadataRequest struct{ DeleteVersionAfter string }
)
