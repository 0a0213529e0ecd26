package native

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/luminate/luminate/storage"
)

// maxZstdWindow is the largest window that a zstd body may ask for: what every
// decoder must support by RFC 8878, and all that the levels up to 19 use.
const maxZstdWindow = 8 << 20

// errBodyTooLarge marks a body beyond the limit, before or after decompression.
var errBodyTooLarge = errors.New("the body is too large")

// cappedReader fails with errBodyTooLarge once more than left bytes were read, so
// that a cut body is never taken for a whole one.
type cappedReader struct {
	r    io.Reader
	left int64
	over error // instead of errBodyTooLarge, if not nil
}

func (c *cappedReader) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if int64(n) > c.left {
		n, c.left = int(c.left), 0
		if c.over != nil {
			return n, c.over
		}
		return n, errBodyTooLarge
	}
	c.left -= int64(n)
	return n, err
}

var (
	gzipReaders sync.Pool // of *gzip.Reader
	zstdReaders sync.Pool // of *zstd.Decoder
)

// openBody returns the decompressed body, bounded before and after decompression;
// release gives the decompressor back. Errors are *Error.
func openBody(r *http.Request, most int64) (body io.Reader, release func(), err error) {
	none := func() {}
	if r.ContentLength > most {
		return nil, none, bodyTooLarge(most)
	}
	raw := &cappedReader{r: r.Body, left: most}
	switch enc := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); enc {
	case "", "identity":
		return raw, none, nil
	case "gzip", "x-gzip":
		z, _ := gzipReaders.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		if err := z.Reset(raw); err != nil {
			gzipReaders.Put(z)
			return nil, none, bodyError(fmt.Errorf("open the gzip body: %w", err), most)
		}
		return &cappedReader{r: z, left: most}, func() { gzipReaders.Put(z) }, nil
	case "zstd":
		z, _ := zstdReaders.Get().(*zstd.Decoder)
		if z == nil {
			// One goroutine's worth of work: the decoder then starts none of its own.
			z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
			if err != nil {
				return nil, none, fmt.Errorf("make a zstd decoder: %w", err)
			}
		}
		release := func() {
			_ = z.Reset(nil) // drops the reference to the body
			zstdReaders.Put(z)
		}
		if err := z.Reset(raw); err != nil {
			release()
			return nil, none, bodyError(fmt.Errorf("open the zstd body: %w", err), most)
		}
		return &cappedReader{r: z, left: most}, release, nil
	default:
		return nil, none, errorf(http.StatusUnsupportedMediaType, CodeInvalidJSON,
			"Content-Encoding %q is not supported: gzip, zstd and identity are", clipText(enc))
	}
}

func bodyTooLarge(most int64) *Error {
	e := errorf(http.StatusRequestEntityTooLarge, CodeBatchTooLarge,
		"the body is larger than %d bytes, before or after decompression; nothing was stored", most)
	e.Details = map[string]any{"limit": "maxBodyBytes", "max": most}
	return e
}

// decodedTooLarge tells of a body that decompresses to more than the tenant may send.
func decodedTooLarge(most int64) *Error {
	e := errorf(http.StatusRequestEntityTooLarge, CodeBatchTooLarge,
		"the body has more than %d bytes after decompression (max-decoded-bytes, set by limits.maxDecodedBytes); nothing was stored", most)
	e.Details = map[string]any{"limit": "max-decoded-bytes", "setting": "limits.maxDecodedBytes", "max": most}
	return e
}

// bodyError translates what reading or decoding a body failed with.
func bodyError(err error, most int64) error {
	var e *Error
	var syntax *syntaxError
	var tooLarge *http.MaxBytesError
	var limit *storage.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errBodyTooLarge), errors.As(err, &tooLarge):
		return bodyTooLarge(most)
	case errors.As(err, &limit) && limit.Kind == storage.KindTooLarge: // the tenant's own
		e = errorf(http.StatusRequestEntityTooLarge, CodeBatchTooLarge, "%s", limit.Error())
		e.Details = map[string]any{"limit": limit.ID, "setting": limit.Setting}
		return e
	case errors.As(err, &syntax):
		return invalidJSON("the body is not valid JSON: %s", syntax.Error())
	case errors.Is(err, errMore):
		return invalidJSON("a field outside of \"metrics\" is too long")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidJSON("the body is cut short: %s", err.Error())
	default:
		return invalidJSON("the body cannot be read: %s", err.Error())
	}
}
