package remote

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/golang/snappy"

	"github.com/luminate/luminate/storage"
)

// maxSnappyRatio is more than the block format can reach: a copy of 64 bytes takes
// three, so what claims more than 22 times its size is not snappy, and needs no
// memory to find out.
const maxSnappyRatio = 22

// maxTrustedBytes bounds what a Content-Length alone may reserve.
const maxTrustedBytes = 1 << 20

// readBody reads the whole body into dst's memory, at most limit bytes. A larger
// body is KindTooLarge, one that breaks off KindInvalid.
func readBody(r *http.Request, dst []byte, limit int64) ([]byte, error) {
	tooLarge := func() error {
		return storage.LimitErrorf(storage.KindTooLarge, "read body", "max-body-bytes", "remote.maxBodyBytes",
			"the body has more than %d bytes", limit)
	}
	if r.ContentLength > limit {
		return dst, tooLarge()
	}
	// A length that is only claimed takes no more memory than an ordinary body needs.
	if need := min(int(r.ContentLength), maxTrustedBytes) + bytes.MinRead; r.ContentLength > 0 && cap(dst) < need {
		dst = make([]byte, 0, need)
	}
	dst, err := readLimited(r.Body, dst, limit)
	switch {
	case errors.Is(err, errOverLimit):
		return dst, tooLarge()
	case err != nil:
		return dst, bodyError(err)
	}
	return dst, nil
}

var errOverLimit = errors.New("over the limit")

// readLimited reads all of r into dst's memory; more than limit bytes are
// errOverLimit.
func readLimited(r io.Reader, dst []byte, limit int64) ([]byte, error) {
	buf := bytes.NewBuffer(dst[:0])
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	if n > limit {
		return buf.Bytes(), errOverLimit
	}
	return buf.Bytes(), err
}

// bodyError gives an error of reading a body its kind.
func bodyError(err error) error {
	var max *http.MaxBytesError
	if errors.As(err, &max) {
		return storage.Errorf(storage.KindTooLarge, "read body", "the body has more than %d bytes", max.Limit)
	}
	if kind := storage.KindOf(err); kind != storage.KindInternal {
		return storage.Errorf(kind, "read body", "%w", err)
	}
	return storage.Errorf(storage.KindInvalid, "read body", "%w", err)
}

// decodeSnappy decompresses a snappy block into dst's memory. What the block claims
// is checked before memory is taken.
func decodeSnappy(dst, src []byte, limit decodedLimit) ([]byte, error) {
	invalid := func(err error) ([]byte, error) {
		hint := ""
		if bytes.HasPrefix(src, []byte("\xff\x06\x00\x00sNaPpY")) {
			hint = ", this is the framed format, send the block format"
		}
		return dst, storage.Errorf(storage.KindInvalid, "decompress", "%w (body of %d bytes%s)", err, len(src), hint)
	}
	claimed, err := snappy.DecodedLen(src)
	if err != nil {
		return invalid(err)
	}
	if int64(claimed) > limit.bytes {
		return dst, limit.over("the body decompresses to %d bytes, at most %d are allowed", claimed, limit.bytes)
	}
	if claimed > maxSnappyRatio*len(src) {
		return invalid(snappy.ErrCorrupt)
	}
	if cap(dst) < claimed {
		dst = make([]byte, claimed)
	}
	out, err := snappy.Decode(dst[:cap(dst)], src)
	if err != nil {
		return invalid(err)
	}
	return out, nil
}

// claimedBytes is what a snappy block claims to decompress to, 0 if it is not one.
func claimedBytes(src []byte) int64 {
	n, err := snappy.DecodedLen(src)
	if err != nil {
		return 0
	}
	return int64(n)
}
