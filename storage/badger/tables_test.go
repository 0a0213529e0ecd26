package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestDamagedTablesNeverPanic flips bits where Badger itself panics: near the end of a
// table, where blocks keep the offsets of their entries and the index begins. Badger
// opens tables in goroutines of its own, so that such a panic would end this test.
func TestDamagedTablesNeverPanic(t *testing.T) {
	cfg := testConfig(t.TempDir())
	db := openTest(t, cfg)
	for i := range 10 {
		fill(t, db, fmt.Sprintf("m%d", i), 300, 20, db.now().UnixMilli())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for i := range 30 {
		c := cfg
		c.Dir = filepath.Join(t.TempDir(), "damaged")
		if err := copyTree(cfg.Dir, c.Dir); err != nil {
			t.Fatal(err)
		}
		path := onlyFile(t, filepath.Join(c.Dir, kvDir), "*.sst")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		flipBit(t, path, info.Size()-1-int64(rng.IntN(700)), i%8)
		if _, _, err := openDamaged(t, c); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no flip did harm: the test does not reach what it is for")
	}
}

// TestPanicsOfBadgerAreErrors: the panic of a damaged block is an error that says so,
// every other one goes on.
func TestPanicsOfBadgerAreErrors(t *testing.T) {
	read := func(value any) (err error) {
		defer damageOf(&err)
		if value != nil {
			panic(value)
		}
		return fs.ErrNotExist
	}
	if err := read(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no panic: %v", err)
	}
	if err := read(badgerPanic + "\nTable ID: 7\nBlock ID: 2\n"); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "Table ID: 7 Block ID: 2") {
		t.Errorf("a damaged block: %v", err)
	}
	defer func() {
		if r := recover(); r != "other" {
			t.Errorf("recovered %v, want the other panic", r)
		}
	}()
	_ = read("other")
}

// TestProbeLeavesTornTables: a table that a crash left half written is not in the
// manifest, and the store opens without it.
func TestProbeLeavesTornTables(t *testing.T) {
	cfg := testConfig(t.TempDir())
	db := openTest(t, cfg)
	fill(t, db, "m", 30, 5, db.now().UnixMilli())
	want := sampleCount(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(cfg.Dir, kvDir, "009999.sst")
	if err := os.WriteFile(torn, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := sampleCount(t, again); got != want {
		t.Errorf("%d samples, want %d", got, want)
	}
}
