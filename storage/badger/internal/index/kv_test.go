package index

import (
	"bytes"
	"maps"
	"slices"
	"sync"
)

// kv is an ordered key-value store in memory: Source and Sink.
type kv struct {
	mu     sync.Mutex
	values map[string][]byte // kind, suffix
	sorted []string
}

func newKV() *kv { return &kv{values: map[string][]byte{}} }

func (s *kv) clone() *kv { return &kv{values: maps.Clone(s.values)} }

func (s *kv) Put(kind byte, suffix, value []byte) error {
	s.values[string([]byte{kind})+string(suffix)] = value
	s.sorted = nil
	return nil
}

func (s *kv) Delete(kind byte, suffix []byte) error {
	delete(s.values, string([]byte{kind})+string(suffix))
	s.sorted = nil
	return nil
}

func (s *kv) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sorted == nil {
		s.sorted = slices.Sorted(maps.Keys(s.values))
	}
	return s.sorted
}

func (s *kv) Get(kind byte, suffix []byte) ([]byte, bool, error) {
	v, ok := s.values[string([]byte{kind})+string(suffix)]
	return v, ok, nil
}

func (s *kv) Scan(kind byte, prefix, from []byte, fn func(suffix, value []byte) (bool, error)) error {
	keys := s.keys()
	start := string([]byte{kind}) + string(prefix)
	if bytes.Compare(from, prefix) > 0 {
		start = string([]byte{kind}) + string(from)
	}
	i, _ := slices.BinarySearch(keys, start)
	for ; i < len(keys); i++ {
		k := []byte(keys[i])
		if k[0] != kind || !bytes.HasPrefix(k[1:], prefix) {
			return nil
		}
		v := bytes.Clone(s.values[keys[i]])
		more, err := fn(k[1:], v)
		clear(v) // valid during the call only
		clear(k)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (s *kv) ScanKeys(kind byte, prefix, from []byte, fn func(suffix []byte) (bool, error)) error {
	return s.Scan(kind, prefix, from, func(suffix, _ []byte) (bool, error) { return fn(suffix) })
}
