package remote

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/luminate/luminate/storage"
)

// TestXORIsChunkenc: the encoder's bytes are those of Prometheus's own.
func TestXORIsChunkenc(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var x xorEncoder
	var buf []byte
	for range 3000 {
		samples := randomSamples(rng)
		want := chunkenc.NewXORChunk()
		app, err := want.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			app.Append(0, s.T, s.V)
		}
		from := len(buf)
		buf = x.append(buf, samples)
		if !bytes.Equal(buf[from:], want.Bytes()) {
			t.Fatalf("%v:\n%x, want\n%x", samples, buf[from:], want.Bytes())
		}
		if len(buf) > 1<<20 {
			buf = buf[:0]
		}
	}
}

// randomSamples mixes regular and wild steps, equal, near and any values.
func randomSamples(rng *rand.Rand) []storage.Sample {
	out := make([]storage.Sample, 1+rng.IntN(200))
	t, v := rng.Int64()-math.MaxInt64/2, rng.NormFloat64()
	jitter := int64(1) << rng.IntN(40)
	for i := range out {
		t += 15_000
		switch rng.IntN(6) {
		case 0:
			t += rng.Int64N(jitter)
		case 1:
			t += []int64{0, 8191, 8192, 8193, 65536, 65537, 524288, 524289, 1 << 40}[rng.IntN(9)]
		}
		switch rng.IntN(8) {
		case 0:
			v = math.Float64frombits(rng.Uint64())
		case 1:
			v = []float64{0, math.Copysign(0, -1), storage.StaleNaN, math.Inf(1), math.MaxFloat64, 5e-324}[rng.IntN(6)]
		case 2:
			v = math.Float64frombits(math.Float64bits(v) ^ 1<<rng.IntN(64))
		case 3, 4:
			v++
		}
		out[i] = storage.Sample{T: t, V: v}
	}
	return out
}
