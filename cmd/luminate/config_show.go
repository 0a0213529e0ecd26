package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// flagValues returns every key with its value in force, as status/flags shows
// them. Secrets are no keys, so none is in it; DSNs may hold a password and are
// cut.
func flagValues(cfg *Config) map[string]string {
	values := map[string]string{}
	showFields(reflect.ValueOf(*cfg), "", func(key string, v reflect.Value) { values[key] = showValue(key, v) })
	return values
}

// renderConfig returns the configuration in force as YAML, without secrets.
func renderConfig(cfg *Config) string {
	var b strings.Builder
	var open []string
	showFields(reflect.ValueOf(*cfg), "", func(key string, v reflect.Value) {
		parts := strings.Split(key, ".")
		for i, p := range parts[:len(parts)-1] {
			if i < len(open) && open[i] == p {
				continue
			}
			open = append(open[:i], p)
			fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), p)
		}
		open = open[:len(parts)-1]
		fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat("  ", len(parts)-1), parts[len(parts)-1], yamlValue(key, v))
	})
	return b.String()
}

func yamlValue(key string, v reflect.Value) string {
	switch x := v.Interface().(type) {
	case string:
		return fmt.Sprintf("%q", showValue(key, v))
	case []string:
		quoted := make([]string, len(x))
		for i, s := range x {
			quoted[i] = fmt.Sprintf("%q", hidePassword(s))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	default:
		return showValue(key, v)
	}
}

func showFields(v reflect.Value, prefix string, show func(key string, v reflect.Value)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag := f.Tag.Get("koanf")
		switch {
		case tag == "-":
		case f.Type.Kind() == reflect.Struct:
			showFields(v.Field(i), prefix+tag+".", show)
		default:
			show(prefix+tag, v.Field(i))
		}
	}
}

func showValue(_ string, v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case []string:
		hidden := make([]string, len(x))
		for i, s := range x {
			hidden[i] = hidePassword(s)
		}
		return strings.Join(hidden, ",")
	case string:
		return hidePassword(x)
	default:
		return fmt.Sprint(x)
	}
}

// hidePassword replaces the password of a URL such as scheme://user:password@host.
func hidePassword(s string) string {
	scheme := strings.Index(s, "://")
	at := strings.LastIndexByte(s, '@')
	if scheme < 0 || at < scheme {
		return s
	}
	user := s[scheme+3 : at]
	if name, _, ok := strings.Cut(user, ":"); ok {
		return s[:scheme+3] + name + ":***" + s[at:]
	}
	return s
}
