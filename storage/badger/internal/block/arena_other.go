//go:build !unix

package block

func allocSlab(bool) []byte { return make([]byte, slabBytes) }

func freeSlab([]byte, bool) {}
