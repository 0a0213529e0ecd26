package tenancy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// minSecretBytes is what HS256 needs: a secret no shorter than its hash. Shorter
// ones can be found by trying, from one token.
const minSecretBytes = 32

// minRSABits refuses keys that can be factored.
const minRSABits = 2048

// verifyKey is one key with the algorithms that its kind allows: a token's `alg`
// header can only choose among them, so a public key is never taken for a secret.
type verifyKey struct {
	kid     string // of a key set; "" for a key from a file
	set     bool   // from a key set
	key     any
	methods []string
}

// keyRing is every key that holds at a time. It is not changed once published.
type keyRing struct{ keys []verifyKey }

// methods lists the algorithms of all keys.
func (r *keyRing) methods() []string {
	var all []string
	for _, k := range r.keys {
		for _, m := range k.methods {
			if !slices.Contains(all, m) {
				all = append(all, m)
			}
		}
	}
	return all
}

// find returns the keys that may verify a token of the algorithm. A key id chooses
// among the keys of a set; without one a set must have exactly one fitting key.
// Keys from files have no id: the token's is ignored there unless a set knows it.
func (r *keyRing) find(alg, kid string) []any {
	var files, named, set []any
	for _, k := range r.keys {
		switch {
		case !slices.Contains(k.methods, alg):
		case !k.set:
			files = append(files, k.key)
		case kid != "" && k.kid == kid:
			named = append(named, k.key)
		default:
			set = append(set, k.key)
		}
	}
	switch {
	case len(named) > 0:
		return named
	case kid == "" && len(set) == 1:
		return append(files, set[0])
	default:
		return files
	}
}

// methodsOf returns the algorithms for a public key; none for a key that is not
// allowed.
func methodsOf(key any) ([]string, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("RSA key of %d bits, at least %d are needed", k.N.BitLen(), minRSABits)
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}, nil
		case 384:
			return []string{"ES384"}, nil
		case 521:
			return []string{"ES512"}, nil
		}
		return nil, fmt.Errorf("curve %s is not supported", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	default:
		return nil, fmt.Errorf("key type %T is not supported", key)
	}
}

// parseSecrets reads HS256 secrets, one a line: during a rotation the old and the
// new one hold together. The first is the one to mint with.
func parseSecrets(b []byte) ([]verifyKey, error) {
	var keys []verifyKey
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if len(line) < minSecretBytes {
			return nil, fmt.Errorf("a secret has %d bytes, at least %d are needed (openssl rand -hex 32 makes one)", len(line), minSecretBytes)
		}
		keys = append(keys, verifyKey{key: bytes.Clone(line), methods: []string{"HS256"}})
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no secret in it")
	}
	return keys, nil
}

// parsePublicKeys reads every PEM block: public keys (PKIX, PKCS #1) and
// certificates. Several hold together, for a rotation.
func parsePublicKeys(b []byte) ([]verifyKey, error) {
	var keys []verifyKey
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		key, err := parsePublicBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %q: %w", block.Type, err)
		}
		methods, err := methodsOf(key)
		if err != nil {
			return nil, fmt.Errorf("PEM block %q: %w", block.Type, err)
		}
		keys = append(keys, verifyKey{key: key, methods: methods})
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no PEM block with a public key in it")
	}
	return keys, nil
}

func parsePublicBlock(block *pem.Block) (any, error) {
	switch {
	case block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case block.Type == "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("a private key does not belong on a server that only verifies: give it the public key")
	default:
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
}

// equalKeys compares two public keys.
func equalKeys(a, b any) bool {
	k, ok := a.(interface {
		Equal(x crypto.PublicKey) bool
	})
	return ok && k.Equal(b)
}
