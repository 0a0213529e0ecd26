package storage

import (
	"context"
	"sync"
	"sync/atomic"
)

// Scratch is what a store keeps for one request of a user: what one of its calls found
// out and a later one can use, such as the series that Estimate looked up when Select
// asks for the same. It lives as long as the request, so what it says is as of the
// request. It is safe for concurrent use.
type Scratch struct {
	found sync.Map
	bytes atomic.Int64
}

// maxScratchBytes bounds what a request keeps: a query may have a thousand selectors.
const maxScratchBytes = 8 << 20

type scratchKey struct{}

// WithScratch returns a context for one request, with an empty scratch.
func WithScratch(ctx context.Context) context.Context {
	return context.WithValue(ctx, scratchKey{}, new(Scratch))
}

// ScratchOf returns the request's scratch, or nil, which keeps nothing.
func ScratchOf(ctx context.Context) *Scratch {
	s, _ := ctx.Value(scratchKey{}).(*Scratch)
	return s
}

// Keep stores what was found, of about so many bytes, unless the scratch is full. The
// key's type belongs to the store, as with a context's.
func (s *Scratch) Keep(key, found any, bytes int64) {
	if s != nil && s.bytes.Add(bytes) <= maxScratchBytes {
		s.found.Store(key, found)
	}
}

// Find returns what was kept under a key.
func (s *Scratch) Find(key any) (found any, ok bool) {
	if s == nil {
		return nil, false
	}
	return s.found.Load(key)
}
