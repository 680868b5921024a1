// Package kafka stands in for a broker's client, which would be linked and never used.
package kafka

import (
	"context"
	"errors"
	"time"
)

type LeastBytes struct{}

type Message struct{ Key, Value []byte }

type WriterConfig struct {
	Brokers      []string
	Topic        string
	Balancer     any
	BatchTimeout time.Duration
}

type Writer struct{}

func NewWriter(WriterConfig) *Writer { return &Writer{} }

func (*Writer) WriteMessages(context.Context, ...Message) error {
	return errors.New("this engine has no Kafka")
}

func (*Writer) Close() error { return nil }
