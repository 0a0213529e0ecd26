package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/prometheus/client_golang/prometheus"
)

// FuzzTenantIsolation stores a series for one tenant and looks for it as another,
// on Badger, whose keys hold tenants, metrics and labels side by side: no pair of
// ids, and no name that continues an id, may bring two of them together. Deleting
// one tenant leaves the other.
func FuzzTenantIsolation(f *testing.F) {
	cfg := DefaultConfig()
	cfg.Storage.Badger.Dir = f.TempDir()
	store, _, err := openStore(f.Context(), &cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), newProbes("badger", time.Now()))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = store.Close() })
	for _, s := range isolationSeeds {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, x, y, metric, value string) {
		if canBeStored(x, y, metric, value) {
			isolated(t, store, x, y, metric, value)
		}
	})
}

// isolationSeeds are pairs of tenants, a metric and a value that a careless key would mix.
var isolationSeeds = [][4]string{
	{"a", "ab", "b", "x"}, {"a", "a.b", "m", "x"}, {"t", "t1", "1m", "1"}, {"-", "--", "-", "-"}, {"A", "a", "m", "x"},
	{"a..b", "a...b", "m", "x"}, {"0", "00", "0", "0"}, {"a_", "a", "_", "_"}, {"tenant", "tenant-1", "-1", "\x00"},
}

// canBeStored tells whether two different tenants can have such a series.
func canBeStored(x, y, metric, value string) bool {
	tx, errx := storage.ParseTenant(x)
	ty, erry := storage.ParseTenant(y)
	labels := storage.LabelsFromStrings("__name__", metric, "l", value)
	return errx == nil && erry == nil && tx != ty && metric != "" && value != "" && labels.Validate() == nil && len(labels) <= 4096
}

// isolated stores a series for tenant x: tenant y does not see it, and neither's deletion
// touches the other. canBeStored must hold.
func isolated(t *testing.T, store storage.Store, x, y, metric, value string) {
	now := time.Now().UnixMilli()
	all := storage.Selection{MinT: now - 1000, MaxT: now + 1000}
	tx, ty := storage.MustTenant(x), storage.MustTenant(y)
	labels := storage.LabelsFromStrings("__name__", metric, "l", value)
	if err := store.DeleteTenant(t.Context(), ty); err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	b.Add(labels, storage.Sample{T: now, V: 1})
	storagetest.MustAppend(t, store, x, &b)
	if got := storagetest.Collect(t, store, y, all); len(got) != 0 {
		t.Fatalf("tenant %q sees %v of %q", y, got[0].Labels, x)
	}
	if err := store.DeleteTenant(t.Context(), ty); err != nil {
		t.Fatal(err)
	}
	if got := storagetest.Collect(t, store, x, all); len(got) != 1 {
		t.Fatalf("tenant %q has %d series after %q was deleted, want 1", x, len(got), y)
	}
	if err := store.DeleteTenant(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if got := storagetest.Collect(t, store, x, all); len(got) != 0 {
		t.Fatalf("a deleted tenant %q has %d series", x, len(got))
	}
}
