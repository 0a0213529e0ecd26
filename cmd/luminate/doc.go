// Command luminate is a multi-tenant metrics store for high-cardinality data.
//
// It is the only package that reads flags, the environment or files of
// configuration; it builds every component, groups what runs, and stops it in
// order. See the README for its use.
package main
