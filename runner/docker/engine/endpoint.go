package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

const defaultHost = "unix:///var/run/docker.sock"

type target struct{ host, certs string }

// endpoint finds the engine the way the docker command does: DOCKER_HOST, then
// the context named by DOCKER_CONTEXT or the configuration, then the default
// socket. Where that does not exist, the rootless engine's socket is taken.
func endpoint(cfg Config) (target, error) {
	if cfg.Host != "" {
		return target{host: cfg.Host}, nil
	}
	home := cfg.Getenv("HOME")
	dir := cfg.Getenv("DOCKER_CONFIG")
	if dir == "" && home != "" {
		dir = filepath.Join(home, ".docker")
	}
	if h := cfg.Getenv("DOCKER_HOST"); h != "" {
		t := target{host: h}
		if cfg.Getenv("DOCKER_TLS_VERIFY") != "" {
			if t.certs = cfg.Getenv("DOCKER_CERT_PATH"); t.certs == "" {
				t.certs = dir
			}
		}
		return t, nil
	}
	if name := contextName(cfg, dir); name != "" {
		return contextEndpoint(dir, name)
	}
	if run := cfg.Getenv("XDG_RUNTIME_DIR"); run != "" && !isSocket("/var/run/docker.sock") {
		if rootless := filepath.Join(run, "docker.sock"); isSocket(rootless) {
			return target{host: "unix://" + rootless}, nil
		}
	}
	return target{host: defaultHost}, nil
}

func isSocket(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeSocket != 0
}

// contextName is the Docker context in force, empty for the default one.
func contextName(cfg Config, dir string) string {
	name := cfg.Getenv("DOCKER_CONTEXT")
	if name == "" && dir != "" {
		var file struct {
			CurrentContext string `json:"currentContext"`
		}
		if b, err := os.ReadFile(filepath.Join(dir, "config.json")); err == nil && json.Unmarshal(b, &file) == nil {
			name = file.CurrentContext
		}
	}
	if name == "default" {
		return ""
	}
	return name
}

// contextEndpoint reads a context as the docker command stores it: a folder
// named by the SHA-256 of the context's name (docker/cli cli/context/store).
func contextEndpoint(dir, name string) (target, error) {
	id := contextID(name)
	var meta struct {
		Endpoints map[string]struct{ Host string }
	}
	b, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", id, "meta.json"))
	if err == nil {
		err = json.Unmarshal(b, &meta)
	}
	if host := meta.Endpoints["docker"].Host; err == nil && host != "" {
		t := target{host: host}
		if certs := filepath.Join(dir, "contexts", "tls", id, "docker"); exists(filepath.Join(certs, "cert.pem")) {
			t.certs = certs
		}
		return t, nil
	}
	return target{}, &UnavailableError{Host: "context " + name, Why: fmt.Sprintf("the Docker context %q cannot be read", name),
		Fix: "choose another with `docker context use`, or set DOCKER_HOST"}
}

func contextID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
