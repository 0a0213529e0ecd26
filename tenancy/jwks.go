package tenancy

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/MicahParks/keyfunc/v3"
)

// Bounds of a key set document.
const (
	maxKeySetBytes = 1 << 20
	maxKeySetKeys  = 256
)

// fetchKeySet reads the key set at url. Luminate fetches on a clock and never
// because of a token's kid: keyfunc's own client may wait up to a minute inside a
// request for an unknown kid, and lets anybody cause fetches.
func fetchKeySet(ctx context.Context, client *http.Client, url string) ([]verifyKey, []error, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("fetch key set: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("fetch key set: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("fetch key set: the answer is %s", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySetBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("fetch key set: %w", err)
	}
	if len(b) > maxKeySetBytes {
		return nil, nil, fmt.Errorf("fetch key set: more than %d bytes", maxKeySetBytes)
	}
	return parseKeySet(ctx, b)
}

// parseKeySet reads a JSON Web Key Set. Keys that are not for signatures, or that
// cannot be used, are left out and told in skipped; a set without any usable key is
// an error, so that a broken answer never replaces keys that work.
func parseKeySet(ctx context.Context, b []byte) (keys []verifyKey, skipped []error, err error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, nil, fmt.Errorf("parse key set: %w", err)
	}
	if len(doc.Keys) > maxKeySetKeys {
		return nil, nil, fmt.Errorf("parse key set: %d keys, at most %d are allowed", len(doc.Keys), maxKeySetKeys)
	}
	for i, raw := range doc.Keys {
		k, err := parseKey(ctx, raw)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, skipped, errors.New("parse key set: there is no usable key in it")
	}
	return keys, skipped, nil
}

// parseKey reads one key. Its algorithm is pinned by the kind of key, and by `alg`
// where the key has one.
func parseKey(ctx context.Context, raw json.RawMessage) (verifyKey, error) {
	kf, err := keyfunc.NewJWKJSON(raw)
	if err != nil {
		return verifyKey{}, err
	}
	all, err := kf.Storage().KeyReadAll(ctx)
	if err != nil || len(all) != 1 {
		return verifyKey{}, fmt.Errorf("read key: %d keys, %w", len(all), err)
	}
	jwk := all[0].Marshal()
	if use := jwk.USE.String(); use != "" && use != "sig" {
		return verifyKey{}, fmt.Errorf("use %q is not sig", use)
	}
	key := all[0].Key()
	if private, ok := key.(interface{ Public() crypto.PublicKey }); ok {
		key = private.Public()
	}
	methods, err := methodsOf(key) // refuses symmetric keys: what a URL serves is no secret
	if err != nil {
		return verifyKey{}, err
	}
	if alg := jwk.ALG.String(); alg != "" {
		if !slices.Contains(methods, alg) {
			return verifyKey{}, fmt.Errorf("alg %q does not fit the key", alg)
		}
		methods = []string{alg}
	}
	return verifyKey{kid: jwk.KID, set: true, key: key, methods: methods}, nil
}
