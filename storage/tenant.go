package storage

import "fmt"

// maxTenantBytes bounds a tenant id; Mimir and Cortex have the same bound, so
// agents configured for them keep working.
const maxTenantBytes = 150

// Tenant names an isolated set of series. The zero value is no tenant and every
// Store refuses it with KindInvalid.
type Tenant struct{ id string }

// ParseTenant validates s as a tenant id: 1 to 150 bytes of [A-Za-z0-9_.-], not
// "." and not "..". The error is a KindInvalid *Error.
func ParseTenant(s string) (Tenant, error) {
	if s == "" {
		return Tenant{}, Errorf(KindInvalid, "tenant", "tenant id is empty")
	}
	if len(s) > maxTenantBytes {
		return Tenant{}, Errorf(KindInvalid, "tenant", "tenant id has %d bytes, at most %d are allowed", len(s), maxTenantBytes)
	}
	if s == "." || s == ".." {
		return Tenant{}, Errorf(KindInvalid, "tenant", "tenant id %q is reserved", s)
	}
	for i := range len(s) {
		if !isTenantByte(s[i]) {
			return Tenant{}, Errorf(KindInvalid, "tenant", "tenant id %q has a byte that is not allowed at position %d: letters, digits, '_', '.' and '-' are", s, i)
		}
	}
	return Tenant{id: s}, nil
}

// MustTenant is ParseTenant for constants and tests; it panics on a bad id.
func MustTenant(s string) Tenant {
	t, err := ParseTenant(s)
	if err != nil {
		panic(fmt.Sprintf("storage: %v", err))
	}
	return t
}

func isTenantByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	default:
		return c == '_' || c == '.' || c == '-'
	}
}

// String returns the id, "" for the zero Tenant.
func (t Tenant) String() string { return t.id }

// IsZero tells whether t names no tenant.
func (t Tenant) IsZero() bool { return t.id == "" }

// Validate refuses the zero Tenant with KindInvalid; backends call it first in
// every method.
func (t Tenant) Validate() error {
	if t.IsZero() {
		return Errorf(KindInvalid, "tenant", "no tenant given")
	}
	return nil
}
