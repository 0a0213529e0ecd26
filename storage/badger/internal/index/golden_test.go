package index

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const goldenV1 = "testdata/packed_v1.hex"

// Keys that an earlier program wrote stay readable: one line each, key and value in hex.
func TestGoldenV1(t *testing.T) {
	m, s := NewMem(), newKV()
	ref := fillRandom(t, rand.New(rand.NewPCG(16, 16)), m, 60)
	if *update {
		pack(t, m, s, packLimits{block: 600, record: 3000, hashes: 40})
		var b strings.Builder
		for _, k := range s.keys() {
			fmt.Fprintf(&b, "%x %x\n", k, s.values[k])
		}
		if err := os.WriteFile(goldenV1, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(goldenV1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	old := newKV()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		k, v, _ := strings.Cut(lines.Text(), " ")
		key, err := hex.DecodeString(k)
		if err != nil {
			t.Fatal(err)
		}
		if old.values[string(key)], err = hex.DecodeString(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(17, 17))
	checkReader(t, r, pack(t, load(t, old), old.clone(), tinyLimits), ref, 10)
	if askAll(t, old, ref, "golden keys") {
		t.Fatal("the golden keys are not readable")
	}
}
