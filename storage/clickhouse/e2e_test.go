//go:build e2e

package clickhouse_test

import (
	"testing"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestConformanceLong is TestConformance with many more random operations.
func TestConformanceLong(t *testing.T) {
	chtest.Start(t)
	storagetest.Run(t, func(t testing.TB) storage.Store { return open(t, testConfig(chtest.DSN(t))) }, storagetest.Options{RandomOps: 300})
}

// TestConformanceOfShards runs the suite over three engines.
func TestConformanceOfShards(t *testing.T) {
	chtest.Start(t)
	second, third := chtest.Own(t), chtest.Own(t)
	storagetest.Run(t, func(t testing.TB) storage.Store {
		return open(t, testConfig(chtest.DSN(t), second.Database(t), third.Database(t)))
	}, storagetest.Options{RandomOps: 30})
}
