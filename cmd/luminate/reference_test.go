package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the files that tests keep true")

// TestConfigurationReference keeps the reference of every key equal to the
// structs.
func TestConfigurationReference(t *testing.T) {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Configuration

Every key with its default. A key `+"`a.b.c`"+` stands in the YAML file (--config) nested, is `+"`LUMINATE_A_B_C`"+` in the
environment (a capital within a word may be written with an underscore: `+"`walSync` is `WAL_SYNC`"+`) and `+"`--a.b.c`"+` as a
flag; a flag beats the environment beats the file beats the default. Sizes take KiB, MiB, GiB, TiB. Unknown keys are
errors. `+"`luminate check-config`"+` reads all of it without starting. Made by `+"`go test ./cmd/luminate -update`"+`.

| Key | Default | Meaning |
|---|---|---|
`)
	for _, k := range configKeys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Key, defaultText(k.Default), k.Doc)
	}
	fmt.Fprintf(&b, "\nFrom the environment alone: `%s`, the HS256 secret itself.\n", secretEnv)
	const path = "../../deploy/configuration.md"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Errorf("%s is not what the structs say; write it anew with `go test ./cmd/luminate -run TestConfigurationReference -update`", path)
	}
}

func defaultText(v any) string {
	switch x := v.(type) {
	case string:
		if x == "" {
			return "none"
		}
		return "`" + x + "`"
	case []string:
		if len(x) == 0 {
			return "none"
		}
		return "`" + strings.Join(x, ", ") + "`"
	case time.Duration:
		return "`" + x.String() + "`"
	default:
		return fmt.Sprintf("`%v`", x)
	}
}
