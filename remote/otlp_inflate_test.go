package remote

import (
	"bytes"
	"errors"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// TestInflateTakesMemoryForWhatFits: a body that decompresses to more than the limit
// is refused with memory for a few times its own size; one that fits is whole.
func TestInflateTakesMemoryForWhatFits(t *testing.T) {
	const limit = 4 << 20
	for _, size := range []int{0, 1, 1000, 100_000, limit - 1, limit, limit + 1, 16 * limit} {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(bytes.Repeat([]byte("ab"), size/2+1)[:size]); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		zr, err := gzip.NewReader(bytes.NewReader(z.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		q := otlpRequest{body: z.Bytes()}
		err = q.inflate(zr, limit)
		if size > limit {
			if !errors.Is(err, errOverLimit) {
				t.Errorf("%d bytes: error %v, want over the limit", size, err)
			}
			if most := 4 * trustedInflation * (z.Len() + bytes.MinRead); cap(q.decoded) > most {
				t.Errorf("%d bytes refused with %d of memory, at most %d wanted", size, cap(q.decoded), most)
			}
			continue
		}
		if err != nil || len(q.decoded) != size {
			t.Errorf("%d bytes: got %d, error %v", size, len(q.decoded), err)
		}
	}
}
