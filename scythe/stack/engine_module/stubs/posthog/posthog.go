// Package posthog stands in for the client of an analytics service, which is never used here.
package posthog

import "errors"

type (
	Properties map[string]any
	Groups     map[string]any

	Config struct {
		Endpoint string
		Logger   any
	}
	Capture struct {
		DistinctId, Event string
		Properties        Properties
		Groups            Groups
	}
	Identify struct {
		DistinctId string
		Properties Properties
	}
	GroupIdentify struct {
		Type, Key  string
		Properties Properties
	}
	FeatureFlagPayload struct {
		Key, DistinctId string
		Groups          Groups
	}
	Client interface {
		Enqueue(message any) error
		IsFeatureEnabled(FeatureFlagPayload) (any, error)
		Close() error
	}
)

func NewGroups() Groups { return Groups{} }

func (g Groups) Set(name string, value any) Groups {
	g[name] = value

	return g
}

func NewWithConfig(string, Config) (Client, error) {
	return nil, errors.New("this engine has no PostHog")
}
