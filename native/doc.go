// Package native is Luminate's own JSON API: writing and querying metrics,
// discovery, cardinality, administration, and what tells a caller about himself.
package native
