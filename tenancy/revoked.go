package tenancy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// revocations are the tokens that no longer hold, by id (jti) or subject.
type revocations map[string]struct{}

// parseRevoked reads one id or subject a line; # begins a comment line.
func parseRevoked(b []byte) (revocations, error) {
	set := revocations{}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		entry := string(bytes.TrimSpace(line))
		if entry == "" || strings.HasPrefix(entry, "#") {
			continue
		}
		if strings.ContainsFunc(entry, unicode.IsControl) {
			return nil, fmt.Errorf("line %d has a control character", n)
		}
		set[entry] = struct{}{}
	}
	return set, nil
}

// has tells whether the token is revoked.
func (r revocations) has(g *grant) bool {
	if len(r) == 0 {
		return false
	}
	if _, ok := r[g.id]; ok && g.id != "" {
		return true
	}
	_, ok := r[g.subject]
	return ok && g.subject != ""
}
