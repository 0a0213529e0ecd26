package storage

import (
	"testing"

	"github.com/zeebo/xxh3"
)

// TestHashSeries keeps hashes only for the series and the seed that they are of.
func TestHashSeries(t *testing.T) {
	one, two := LabelsFromStrings("__name__", "m", "a", "1"), LabelsFromStrings("__name__", "m", "a", "2")
	var b Batch
	b.Add(one, Sample{T: 1, V: 1})
	b.Add(two, Sample{T: 1, V: 1})
	if b.Hashes(7) != nil {
		t.Error("hashes that nobody has computed")
	}
	b.HashSeries(7)
	got := b.Hashes(7)
	if len(got) != 2 || got[0] != xxh3.Hash128Seed(one, 7) || got[1] != xxh3.Hash128Seed(two, 7) {
		t.Errorf("hashes: %v", got)
	}
	if b.Hashes(8) != nil {
		t.Error("hashes of another seed")
	}
	b.Add(one, Sample{T: 2, V: 1})
	if b.Hashes(7) != nil {
		t.Error("hashes of a batch that has grown since")
	}
	b.HashSeries(7)
	b.ForgetHashes()
	if b.Hashes(7) != nil {
		t.Error("hashes that were to be forgotten")
	}
	b.HashSeries(7)
	b.Reset()
	b.Add(two, Sample{T: 1, V: 1})
	if b.Hashes(7) != nil {
		t.Error("hashes of the batch before")
	}
}
