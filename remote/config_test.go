package remote

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage/storagetest"
)

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
	var empty Config
	err := empty.Validate()
	for _, want := range []string{"maxBodyBytes", "maxDecodedBytes", "maxBatchBytes", "queueTimeout", "retryAfter", "shape.labels",
		"shape.nameBytes", "shape.valueBytes", "read.maxBodyBytes", "read.maxQueries", "read.maxSamples", "read.maxFrameBytes",
		"read.concurrency", "otlp.lookbackDelta", "otlp.maxElements", "otlp.translationStrategy"} {
		if err == nil || !strings.Contains(err.Error(), "remote: "+want+" ") {
			t.Errorf("%s is not among the problems: %v", want, err)
		}
	}
	for want, edit := range map[string]func(*Config){
		"maxInFlightBytes": func(c *Config) { c.MaxInFlightBytes = c.MaxDecodedBytes - 1 },
		"maxBatchBytes":    func(c *Config) { c.MaxBatchBytes = maxMessageBytes + 1 },
		"exclude each other": func(c *Config) {
			c.OTLP.PromoteAllResourceAttributes, c.OTLP.PromoteResourceAttributes = true, []string{"a"}
		},
	} {
		c := DefaultConfig()
		edit(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if _, err := New(storagetest.NewModel(), c, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
			t.Errorf("%s: New took it", want)
		}
	}
	if _, err := New(nil, DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
		t.Error("New took no store")
	}
}
