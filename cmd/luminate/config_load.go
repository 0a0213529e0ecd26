package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agnivade/levenshtein"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// envPrefix begins every variable that configures Luminate; variables of the
// tests (LUMINATE_TEST_…) are not ours.
const envPrefix = "LUMINATE_"

// secretEnv gives the JWT secret itself, which no file or flag can.
const secretEnv = "LUMINATE_AUTH_JWT_SECRET"

// renamedKeys maps a key's old name to its new one. An old name works for one
// release and warns.
var renamedKeys = map[string]string{}

// configKey is one key with its default.
type configKey struct {
	Key     string
	Doc     string
	Default any
}

// configKeys lists every key in the order of the structs.
func configKeys() []configKey {
	var keys []configKey
	collectKeys(reflect.ValueOf(DefaultConfig()), "", &keys)
	return keys
}

func collectKeys(v reflect.Value, prefix string, keys *[]configKey) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag := f.Tag.Get("koanf")
		switch {
		case tag == "-":
		case f.Type.Kind() == reflect.Struct:
			collectKeys(v.Field(i), prefix+tag+".", keys)
		default:
			*keys = append(*keys, configKey{Key: prefix + tag, Doc: f.Tag.Get("doc"), Default: v.Field(i).Interface()})
		}
	}
}

// addConfigFlags defines a flag for every key on fs, and --config.
func addConfigFlags(fs *pflag.FlagSet) {
	fs.String("config", "", "YAML file with the configuration")
	for _, k := range configKeys() {
		switch d := k.Default.(type) {
		case string:
			fs.String(k.Key, d, k.Doc)
		case bool:
			fs.Bool(k.Key, d, k.Doc)
		case int:
			fs.Int(k.Key, d, k.Doc)
		case int64:
			fs.Int64(k.Key, d, k.Doc)
		case time.Duration:
			fs.Duration(k.Key, d, k.Doc)
		case []string:
			fs.StringSlice(k.Key, d, k.Doc)
		default:
			panic(fmt.Sprintf("luminate: key %s has a type without a flag: %T", k.Key, d))
		}
	}
}

// loadConfig reads the configuration: a flag beats the environment beats the file
// beats the default. env is os.Environ's form. Unknown keys are errors that name
// the key and the nearest right one; every problem is told at once. warnings are
// for the log once there is one.
func loadConfig(fs *pflag.FlagSet, env []string) (cfg Config, warnings []string, err error) {
	keys := configKeys()
	k := koanf.New(".")
	var errs []error
	path, _ := fs.GetString("config")
	if path != "" {
		warns, err := loadFile(k, path, keys)
		warnings = append(warnings, warns...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	fromEnv, err := readEnv(env, keys)
	if err != nil {
		errs = append(errs, err)
	}
	if err := k.Load(confmap.Provider(fromEnv, "."), nil); err != nil {
		errs = append(errs, err)
	}
	if err := k.Load(confmap.Provider(changedFlags(fs), "."), nil); err != nil {
		errs = append(errs, err)
	}
	cfg = DefaultConfig()
	if err := unmarshalConfig(k, &cfg); err != nil {
		errs = append(errs, err)
	}
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, secretEnv+"="); ok {
			cfg.Auth.JWTSecret = v
		}
	}
	if len(errs) == 0 {
		if err := cfg.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	return cfg, warnings, errors.Join(errs...)
}

// loadFile merges the YAML file into k, with old keys renamed.
func loadFile(k *koanf.Koanf, path string, keys []configKey) (warnings []string, err error) {
	f := koanf.New(".")
	if err := f.Load(file.Provider(path), yaml.Parser()); err != nil {
		return nil, fmt.Errorf("config file %s: %w", path, err)
	}
	var errs []error
	values := map[string]any{}
	for key, v := range f.All() {
		if to, ok := renamedKeys[key]; ok {
			warnings = append(warnings, fmt.Sprintf("config file %s: %s is now called %s; the old name works in this release only", path, key, to))
			key = to
		}
		if !knownKey(keys, key) {
			errs = append(errs, fmt.Errorf("config file %s: unknown key %q%s", path, key, nearest(key, keys)))
			continue
		}
		values[key] = v
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if err := k.Load(confmap.Provider(values, "."), nil); err != nil {
		errs = append(errs, err)
	}
	return warnings, errors.Join(errs...)
}

func knownKey(keys []configKey, key string) bool {
	return slices.ContainsFunc(keys, func(k configKey) bool { return k.Key == key })
}

// nearest suggests the known key with the least edit distance.
func nearest(key string, keys []configKey) string {
	best, distance := "", len(key)/2+2
	for _, k := range keys {
		if d := levenshtein.ComputeDistance(strings.ToLower(key), strings.ToLower(k.Key)); d < distance {
			best, distance = k.Key, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// envNames returns the variables of a key: storage.badger.walSync is
// LUMINATE_STORAGE_BADGER_WALSYNC and LUMINATE_STORAGE_BADGER_WAL_SYNC.
func envNames(key string) []string {
	flat := envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
	var b strings.Builder
	for i, r := range key {
		if unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(rune(key[i-1])) {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	snake := envPrefix + strings.ToUpper(strings.ReplaceAll(b.String(), ".", "_"))
	if snake == flat {
		return []string{flat}
	}
	return []string{flat, snake}
}

// readEnv picks the keys that the environment sets.
func readEnv(env []string, keys []configKey) (map[string]any, error) {
	byName := map[string]string{}
	for _, k := range keys {
		for _, n := range envNames(k.Key) {
			byName[n] = k.Key
		}
	}
	values, services := map[string]any{}, linkedServices(env)
	var errs []error
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || strings.HasPrefix(name, envPrefix+"TEST_") || name == secretEnv {
			continue
		}
		key, ok := byName[name]
		if !ok && isServiceLink(name, services) {
			continue
		}
		if !ok {
			asKey := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "."))
			errs = append(errs, fmt.Errorf("environment: unknown variable %s%s", name, nearest(asKey, keys)))
			continue
		}
		values[key] = value
	}
	return values, errors.Join(errs...)
}

// linkedServices returns the prefixes of the variables that Kubernetes sets for each
// Service of a pod's namespace: a Service named luminate makes LUMINATE_SERVICE_HOST,
// LUMINATE_PORT and more, unless the pod says enableServiceLinks: false.
func linkedServices(env []string) []string {
	var prefixes []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if prefix, ok := strings.CutSuffix(name, "SERVICE_HOST"); ok {
			prefixes = append(prefixes, prefix)
		}
	}
	if !slices.Contains(prefixes, "KUBERNETES_") {
		return nil // not in a pod
	}
	return prefixes
}

// isServiceLink tells whether name is one of a linked Service's variables.
func isServiceLink(name string, services []string) bool {
	return slices.ContainsFunc(services, func(prefix string) bool {
		rest, ok := strings.CutPrefix(name, prefix)
		return ok && (rest == "SERVICE_HOST" || rest == "PORT" || strings.HasPrefix(rest, "SERVICE_PORT") || portLink.MatchString(rest))
	})
}

// portLink is the end of a variable for one port of a Service.
var portLink = regexp.MustCompile(`^PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// changedFlags returns the flags that the command line sets.
func changedFlags(fs *pflag.FlagSet) map[string]any {
	values := map[string]any{}
	fs.Visit(func(f *pflag.Flag) {
		if f.Name == "config" || f.Name == "help" || !strings.Contains(f.Name, ".") {
			return
		}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			values[f.Name] = s.GetSlice()
			return
		}
		values[f.Name] = f.Value.String()
	})
	return values
}

// unmarshalConfig sets the fields of cfg that k holds; text becomes the field's
// type, and a value of the wrong type is an error that names the key.
func unmarshalConfig(k *koanf.Koanf, cfg *Config) error {
	var errs []error
	setFields(reflect.ValueOf(cfg).Elem(), "", k, &errs)
	return errors.Join(errs...)
}

func setFields(v reflect.Value, prefix string, k *koanf.Koanf, errs *[]error) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag := f.Tag.Get("koanf")
		key := prefix + tag
		switch {
		case tag == "-":
		case f.Type.Kind() == reflect.Struct:
			setFields(v.Field(i), key+".", k, errs)
		case k.Exists(key):
			if err := setField(v.Field(i), k.Get(key)); err != nil {
				*errs = append(*errs, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
}

func setField(dst reflect.Value, value any) error {
	text := fmt.Sprint(value)
	switch dst.Interface().(type) {
	case string:
		if _, ok := value.(map[string]any); ok {
			return errors.New("must be text")
		}
		dst.SetString(text)
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is not true or false", text)
		}
		dst.SetBool(b)
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 30s or 5m", text)
		}
		dst.SetInt(int64(d))
	case int, int64:
		n, err := parseBytes(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		dst.SetInt(n)
	case []string:
		list, err := stringList(value)
		if err != nil {
			return err
		}
		dst.Set(reflect.ValueOf(list))
	}
	return nil
}

// parseBytes reads a whole number with an optional KiB, MiB, GiB or TiB.
func parseBytes(text string) (int64, error) {
	shift := 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(text, unit); ok {
			text, shift = strings.TrimSpace(rest), 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > (1<<62)>>shift || n < -(1<<62)>>shift {
		return 0, errors.New("not a whole number")
	}
	return n << shift, nil
}

func stringList(value any) ([]string, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case []string:
		return v, nil
	case string:
		var out []string
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
		return out, nil
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
		return out, nil
	default:
		return nil, fmt.Errorf("must be a list of texts, it is %T", value)
	}
}

// newLogger builds the logger that the configuration asks for.
func newLogger(c LogConfig, w *os.File) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // validated before
	opts := &slog.HandlerOptions{Level: level}
	format := c.Format
	if format == "auto" {
		format = "json"
		if st, err := w.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			format = "text"
		}
	}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}
