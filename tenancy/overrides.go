package tenancy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"sigs.k8s.io/yaml"

	"github.com/luminate/luminate/storage"
)

// limitSet is the limits of all tenants at a time. It is not changed once
// published.
type limitSet struct {
	defaults Limits
	tenants  map[storage.Tenant]Limits
	hash     uint64 // of the files' bytes
}

// of returns the tenant's limits.
func (s *limitSet) of(t storage.Tenant) Limits {
	if l, ok := s.tenants[t]; ok {
		return l
	}
	return s.defaults
}

// limitFile is the form of the limits file, and of the file beside it that the
// admin API writes:
//
//	defaults:
//	  samplesPerSecond: 100000
//	tenants:
//	  acme:
//	    maxActiveSeries: 5000000
type limitFile struct {
	Defaults json.RawMessage            `json:"defaults,omitempty"`
	Tenants  map[string]json.RawMessage `json:"tenants,omitempty"`
}

// parseLimitFile reads YAML or JSON. Empty content is no override.
func parseLimitFile(b []byte) (limitFile, error) {
	var f limitFile
	doc, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return f, err
	}
	if string(doc) == "null" {
		return f, nil
	}
	dec := json.NewDecoder(strings.NewReader(string(doc)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return limitFile{}, unknownKey(err, []string{"defaults", "tenants"})
	}
	return f, nil
}

// buildLimits lays the file's defaults over base, and a tenant's own over those;
// what the admin API has set for a tenant stands on top.
func buildLimits(base Limits, file, admin limitFile) (*limitSet, error) {
	defaults, err := applyLimits(base, file.Defaults)
	if err != nil {
		return nil, fmt.Errorf("defaults: %w", err)
	}
	set := &limitSet{defaults: defaults, tenants: map[storage.Tenant]Limits{}}
	var errs []error
	for _, layer := range []map[string]json.RawMessage{file.Tenants, admin.Tenants} {
		for name, doc := range layer {
			t, err := storage.ParseTenant(name)
			if err == nil {
				var l Limits
				if l, err = applyLimits(set.of(t), doc); err == nil {
					set.tenants[t] = l
				}
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("tenants.%s: %w", name, err))
			}
		}
	}
	return set, errors.Join(errs...)
}

func hashLimits(parts ...[]byte) uint64 {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
		h.Write([]byte{0})
	}
	return binary.BigEndian.Uint64(h.Sum(nil)) >> 16 // exact in a float64
}

var unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)

// unknownKey adds the nearest right key to encoding/json's error.
func unknownKey(err error, keys []string) error {
	m := unknownField.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	nearest := slices.MinFunc(keys, func(a, b string) int {
		return cmp.Compare(levenshtein.ComputeDistance(m[1], a), levenshtein.ComputeDistance(m[1], b))
	})
	return fmt.Errorf("unknown key %q, the nearest is %q", m[1], nearest)
}

// adminPath is the file beside the limits file that the admin API writes; the
// operator's own file, with its comments, is never rewritten.
func adminPath(path string) string { return path + ".admin.json" }

// writeAtomically replaces path by content, or leaves it as it was: the bytes are
// on disk under another name before they get theirs.
func writeAtomically(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
