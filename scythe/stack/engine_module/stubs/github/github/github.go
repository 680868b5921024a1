// Package github stands in for the client by which Hatchet's dashboard asks who logs in.
package github

import (
	"context"
	"errors"
	"net/http"
)

type (
	ListOptions struct{}
	User        struct {
		GetID             func() int64
		GetName, GetLogin func() string
	}
	UserEmail struct {
		GetEmail                func() string
		GetPrimary, GetVerified func() bool
	}
	users  struct{}
	Client struct{ Users users }
)

var errNone = errors.New("this engine has no GitHub")

func NewClient(*http.Client) *Client { return &Client{} }

func (users) Get(context.Context, string) (*User, any, error) { return nil, nil, errNone }

func (users) ListEmails(context.Context, *ListOptions) ([]*UserEmail, any, error) {
	return nil, nil, errNone
}
