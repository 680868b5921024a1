// Package github stands in for the client by which Hatchet's dashboard asks who logs in.
package github

import (
	"context"
	"errors"
	"net/http"
)

type (
	ListOptions struct{}
	User        struct{}
	UserEmail   struct{}
	users       struct{}
	Client      struct{ Users users }
)

var errNone = errors.New("this engine has no GitHub")

func NewClient(*http.Client) *Client { return &Client{} }

func (users) Get(context.Context, string) (*User, any, error) { return nil, nil, errNone }

func (users) ListEmails(context.Context, *ListOptions) ([]*UserEmail, any, error) {
	return nil, nil, errNone
}

func (*User) GetID() int64 { return 0 }

func (*User) GetName() string { return "" }

func (*User) GetLogin() string { return "" }

func (*UserEmail) GetEmail() string { return "" }

func (*UserEmail) GetPrimary() bool { return false }

func (*UserEmail) GetVerified() bool { return false }
