package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ConfigFromEnv reads the conventions of the hub's own tools and of this
// program from the environment:
//
//   - HF_TOKEN, then HUGGING_FACE_HUB_TOKEN, then the file HF_TOKEN_PATH, then
//     the file "token" in HF_HOME, by default ~/.cache/huggingface; no token
//     with HF_HUB_DISABLE_IMPLICIT_TOKEN=1 (huggingface_hub,
//     src/huggingface_hub/constants.py and utils/_auth.py);
//   - HF_ENDPOINT;
//   - REPROMILL_MIRROR;
//   - XDG_CACHE_HOME for the cache folder, by default ~/.cache/repromill.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	var cfg Config
	cacheHome := getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(cacheHome) { // the XDG rule: a relative one is ignored
		cacheHome = ""
		if home := getenv("HOME"); home != "" {
			cacheHome = filepath.Join(home, ".cache")
		}
	}
	if cacheHome != "" {
		cfg.CacheDir = filepath.Join(cacheHome, "repromill")
	}
	cfg.Mirror = getenv("REPROMILL_MIRROR")
	if e := getenv("HF_ENDPOINT"); e != "" {
		if _, err := parseEndpoint("HF_ENDPOINT", e); err != nil {
			return cfg, err
		}
		cfg.Endpoints = map[Site]string{HF: e}
	}
	var err error
	cfg.HFToken, err = tokenFromEnv(getenv, cacheHome)
	return cfg, err
}

func tokenFromEnv(getenv func(string) string, cacheHome string) (string, error) {
	switch strings.ToUpper(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
	case "1", "ON", "YES", "TRUE":
		return "", nil
	}
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := strings.TrimSpace(getenv(name)); t != "" {
			return checkToken(t, name)
		}
	}
	path := getenv("HF_TOKEN_PATH")
	if path == "" {
		home := getenv("HF_HOME")
		if home == "" && cacheHome != "" {
			home = filepath.Join(cacheHome, "huggingface")
		}
		if home == "" {
			return "", nil
		}
		path = filepath.Join(home, "token")
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", &configError{fmt.Sprintf("read the hub's token: %v", err), "make the file readable, or set HF_TOKEN"}
	}
	if t := strings.TrimSpace(string(data)); t != "" {
		return checkToken(t, path)
	}
	return "", nil
}

// checkToken refuses what cannot stand in a header, without showing it.
func checkToken(t, from string) (string, error) {
	for i := 0; i < len(t); i++ {
		if t[i] <= ' ' || t[i] >= 0x7f {
			return "", &configError{"the hub's token in " + from + " holds characters that no token has", "copy it again from https://huggingface.co/settings/tokens"}
		}
	}
	return t, nil
}
