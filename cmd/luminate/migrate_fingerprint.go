package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/luminate/luminate/storage"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/zeebo/xxh3"
)

// fingerprint describes a set of samples, histograms and exemplars: how many, and
// the sum modulo 2^128 of a hash of each. The sum does not depend on their order,
// and what is taken out of the set can be taken off it.
type fingerprint struct {
	Series     uint64 `json:"series"`
	Samples    uint64 `json:"samples"`
	Histograms uint64 `json:"histograms"`
	Exemplars  uint64 `json:"exemplars"`
	Hash       sum128 `json:"hash"`
}

// sum128 is an unsigned integer modulo 2^128; text is 32 hexadecimal digits.
type sum128 struct{ hi, lo uint64 }

func (s sum128) String() string { return fmt.Sprintf("%016x%016x", s.hi, s.lo) }

// MarshalText implements encoding.TextMarshaler.
func (s sum128) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *sum128) UnmarshalText(b []byte) error {
	if len(b) != 32 {
		return fmt.Errorf("hash %q has not 32 digits", b)
	}
	_, err := fmt.Sscanf(string(b), "%16x%16x", &s.hi, &s.lo)
	return err
}

func (s *sum128) add(o sum128) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, o.lo, 0)
	s.hi, _ = bits.Add64(s.hi, o.hi, carry)
}

func (s *sum128) remove(o sum128) {
	var borrow uint64
	s.lo, borrow = bits.Sub64(s.lo, o.lo, 0)
	s.hi, _ = bits.Sub64(s.hi, o.hi, borrow)
}

// elements counts all but series.
func (f *fingerprint) elements() uint64 { return f.Samples + f.Histograms + f.Exemplars }

func (f *fingerprint) merge(o fingerprint) {
	f.Series, f.Samples, f.Histograms, f.Exemplars = f.Series+o.Series, f.Samples+o.Samples, f.Histograms+o.Histograms, f.Exemplars+o.Exemplars
	f.Hash.add(o.Hash)
}

// remove takes elements off. Series stay counted: a series that lost some of its
// samples is still one.
func (f *fingerprint) remove(o fingerprint) {
	f.Samples, f.Histograms, f.Exemplars = f.Samples-o.Samples, f.Histograms-o.Histograms, f.Exemplars-o.Exemplars
	f.Hash.remove(o.Hash)
}

// sameData compares all but the number of series, which each hash has in it by its
// labels.
func (f fingerprint) sameData(o fingerprint) bool {
	f.Series, o.Series = 0, 0
	return f == o
}

// elementHash hashes elements of one series after the other; the zero value is ready.
type elementHash struct {
	buf     []byte
	labels  int // bytes of buf that hold the labels
	encoded []byte
}

func (h *elementHash) series(ls storage.Labels) {
	h.buf = binary.AppendUvarint(h.buf[:0], uint64(len(ls)))
	h.buf = append(h.buf, ls...)
	h.labels = len(h.buf)
}

func (h *elementHash) element(kind byte, t, st int64, value []byte) sum128 {
	h.buf = append(h.buf[:h.labels], kind)
	h.buf = binary.BigEndian.AppendUint64(h.buf, uint64(t))
	h.buf = binary.BigEndian.AppendUint64(h.buf, uint64(st))
	h.buf = append(h.buf, value...)
	u := xxh3.Hash128(h.buf)
	return sum128{u.Hi, u.Lo}
}

// addSeries adds a series with its samples and histograms.
func (f *fingerprint) addSeries(h *elementHash, s storage.Series) {
	f.Series++
	h.series(s.Labels)
	for i, x := range s.Samples {
		h.encoded = binary.BigEndian.AppendUint64(h.encoded[:0], math.Float64bits(x.V))
		f.Hash.add(h.element('f', x.T, startOf(s, i), h.encoded))
	}
	f.Samples += uint64(len(s.Samples))
	for _, x := range s.Histograms {
		var kind byte
		kind, h.encoded = canonicalHistogram(h.encoded[:0], x)
		f.Hash.add(h.element(kind, x.T, x.ST, h.encoded))
	}
	f.Histograms += uint64(len(s.Histograms))
}

// addExemplars adds a series' exemplars.
func (f *fingerprint) addExemplars(h *elementHash, x storage.ExemplarSeries) {
	h.series(x.Labels)
	for _, e := range x.Exemplars {
		h.encoded = binary.BigEndian.AppendUint64(h.encoded[:0], math.Float64bits(e.V))
		h.encoded = append(h.encoded, e.Labels...)
		f.Hash.add(h.element('e', e.T, 0, h.encoded))
	}
	f.Exemplars += uint64(len(x.Exemplars))
}

// canonicalHistogram appends bytes that are equal for histograms that a Store may
// exchange for each other: a staleness marker is nothing but that, empty buckets may
// be spelled out or not, and counter reset hints depend on the neighbours in a block,
// except that a gauge is one.
func canonicalHistogram(dst []byte, x storage.HistogramSample) (kind byte, _ []byte) {
	kind = 'h'
	if x.FH != nil {
		kind = 'g'
	}
	if x.IsStale() {
		return kind, dst
	}
	hint := func(h histogram.CounterResetHint) histogram.CounterResetHint {
		if h == histogram.GaugeType {
			return h
		}
		return histogram.UnknownCounterReset
	}
	if x.FH != nil {
		x.FH = x.FH.Copy().Compact(0)
		x.FH.CounterResetHint = hint(x.FH.CounterResetHint)
	} else {
		x.H = x.H.Copy().Compact(0)
		x.H.CounterResetHint = hint(x.H.CounterResetHint)
	}
	return kind, storage.EncodeHistogram(dst, x)
}
