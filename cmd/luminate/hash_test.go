package main

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/prometheus/client_golang/prometheus"
)

// TestSeriesAreHashedOnce counts series by the hashes that Badger finds them by. A batch
// that its owner changes between two appends, without a reset, is hashed again.
func TestSeriesAreHashedOnce(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Storage.Badger.Dir = t.TempDir()
	cfg.Limits.File = keep(t, "limits.yaml", "defaults: {maxActiveSeries: 2}\n")
	log := slog.New(slog.DiscardHandler)
	store, _, err := openStore(t.Context(), &cfg, log, prometheus.NewRegistry(), newProbes("badger", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	g, err := newGuards(&cfg, store, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	guarded, now := g.wrap(store), time.Now().UnixMilli()
	var b storage.Batch
	b.Add(storage.LabelsFromStrings("__name__", "m", "l", "one"), storage.Sample{T: now, V: 1})
	for _, value := range []string{"one", "two", "six"} { // of one length: nothing but the bytes tells
		at := bytes.LastIndex(b.Labels, []byte("l")) + 2
		copy(b.Labels[at:], value)
		if err := b.At(0).Labels.Validate(); err != nil || b.At(0).Labels.Get("l") != value {
			t.Fatalf("labels %s: %v", b.At(0).Labels, err)
		}
		res, err := guarded.Append(t.Context(), storage.MustTenant("a"), &b)
		if err != nil || (len(res.Refused) == 0) != (value != "six") {
			t.Errorf("%s: %+v %v", value, res, err)
		}
	}
	if got := storagetest.Collect(t, store, "a", storage.Selection{MinT: now, MaxT: now}); len(got) != 2 {
		t.Errorf("%d series, want one and two", len(got))
	}
}
