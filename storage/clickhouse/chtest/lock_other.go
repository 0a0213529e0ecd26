//go:build !unix

package chtest

import "os"

// once runs make unless path exists already.
func once(path string, create func() error) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return create()
}
