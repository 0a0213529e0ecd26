package block

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// minCompress is the size below which a section is not worth the frame's ten bytes.
const minCompress = 64

// decoders keeps decompressors: one takes half a megabyte and milliseconds to make. They run no goroutines.
var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true),
		zstd.WithDecoderMaxMemory(2*MaxHistogramBytes))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}}

// newCompressor returns an encoder for EncodeAll, which one goroutine may use at a time. Entropy coding of all literals
// matters: varints of random differences hold no matches, and the encoder would otherwise leave them as they are.
func newCompressor() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithAllLitEntropyCompression(true),
		zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<19))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// decompress fills dst[:size] from the frame, which must hold exactly size bytes; dst grows when it is too small. The
// caller has checked size against its limit.
func decompress(dst, frame []byte, size int) ([]byte, error) {
	if cap(dst) < size {
		dst = make([]byte, 0, size)
	}
	d := decoders.Get().(*zstd.Decoder)
	out, err := d.DecodeAll(frame, dst[:0:size])
	decoders.Put(d)
	if err != nil {
		return dst, fmt.Errorf("decompress section: %w: %w", ErrDamaged, err)
	}
	if len(out) != size {
		return dst, damaged("section: size")
	}
	return out, nil
}
