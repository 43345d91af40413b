package image

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
)

//go:embed build.sh
var buildScript string

// settingsPath is where the container sees its settings.
const settingsPath = "/run/repromill"

// secretDir is a folder in memory, so that what settings hold never reaches a
// disk: indexes of a site, its proxies and certificates.
func secretDir() (string, error) {
	for _, parent := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm", os.TempDir()} {
		if parent == "" {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "repromill-build-"); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("make settings folder: no temporary folder can be written")
}

// indexes are the package indexes in force without their credentials, and
// those that the plan names where the site has none of its own.
func (b *Builder) indexes(r *recipe, st *state) (index *url.URL, extra, find []string, devs []spec.Deviation) {
	list := slices.Clone(b.cfg.Index.Extra)
	list = slices.Insert(list, 0, or(b.cfg.Index.URL, pip.DefaultIndex().String()))
	urls, devs := pip.Indexes(list)
	for _, u := range urls[1:] {
		extra = append(extra, u.String())
	}
	for _, x := range r.req.Environment.Indexes {
		u, err := url.Parse(x.URL)
		if err != nil || u.Scheme != "https" || u.User != nil || st.dropped[u.Host] || r.backend != "" && strings.HasSuffix(u.Host, "pytorch.org") {
			continue
		}
		switch x.Kind {
		case "index":
			if u.Host != urls[0].Host {
				extra = append(extra, x.URL)
			}
		case "find_links":
			find = append(find, x.URL)
		}
	}
	return urls[0], extra, find, devs
}

// uvConfig is the uv.toml of a build.
type uvConfig struct {
	BuildDeps map[string][]string `toml:"extra-build-dependencies,omitempty"`
	Late      map[string]string   `toml:"exclude-newer-package,omitempty"`
}

// cacheName is uv's cache inside of the environment's folder, since hard links
// do not cross mounts. It is left out of the layer, and it serves one build
// alone: packages run code while they are built, and could write to it.
const cacheName = ".repromill-cache"

// never is a bounding date that bounds nothing.
const never = "2200-01-01T00:00:00Z"

// writeSettings fills the folder that the container reads.
func (b *Builder) writeSettings(dir string, r *recipe, st *state) error {
	index, extra, find, _ := b.indexes(r, st)
	env := map[string]string{
		"RM_PYTHON": st.python, "RM_FROM": st.from,
		"HOME": "/tmp/home", "UV_CACHE_DIR": EnvPath + "/" + cacheName, "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "hardlink", "UV_NO_PROGRESS": "1", "NO_COLOR": "1",
		"UV_DEFAULT_INDEX": index.String(), "UV_INDEX": strings.Join(extra, " "), "UV_FIND_LINKS": strings.Join(find, " "),
		"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_PYTHON_INSTALL_DIR": PythonPath, "UV_PREVIEW_FEATURES": "extra-build-dependencies",
		"UV_CONFIG_FILE": settingsPath + "/uv.toml", "UV_HTTP_RETRIES": "5", "PYTHONDONTWRITEBYTECODE": "1", "PIP_INDEX_URL": index.String(), "PIP_NO_INPUT": "1", "GIT_TERMINAL_PROMPT": "0",
		"DEBIAN_FRONTEND": "noninteractive", "MAX_JOBS": "4",
	}
	if index.Scheme == "http" { // the user's own choice
		env["UV_INSECURE_HOST"] = index.Host
	}
	if t := r.req.Environment.ExcludeNewer; t != nil && !st.unbounded {
		env["UV_EXCLUDE_NEWER"] = t.UTC().Format("2006-01-02T15:04:05Z")
	}
	if r.inputs.Pre {
		env["UV_PRERELEASE"] = "allow"
	}
	if r.backend != "" && !st.plainTorch {
		env["UV_TORCH_BACKEND"] = r.backend
	}
	if b.cfg.Index.Python != "" {
		env["UV_PYTHON_INSTALL_MIRROR"] = b.cfg.Index.Python
	}
	if st.from == fromUV {
		env["UV_PYTHON_DOWNLOADS"] = "manual"
	}
	if p := b.cfg.Index.Proxy; p != "" && b.cfg.Program == "" { // else ours goes through it
		env["http_proxy"], env["https_proxy"], env["HTTP_PROXY"], env["HTTPS_PROXY"] = p, p, p, p
		env["no_proxy"], env["NO_PROXY"] = b.cfg.Index.NoProxy, b.cfg.Index.NoProxy
	}
	files := map[string]string{"build.sh": buildScript}
	if err := b.certificates(files, env); err != nil {
		return err
	}
	st.files(r, files, env)
	b.condaSettings(r, st, files, env)
	late := map[string]string{}
	for name, until := range st.later {
		late[name] = until.UTC().Format(time.RFC3339)
	}
	for _, name := range st.late {
		late[name] = never
	}
	var conf strings.Builder
	if err := toml.NewEncoder(&conf).Encode(uvConfig{st.extraBuild, late}); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	files["uv.toml"] = conf.String()
	files["settings.sh"] = shell(env)
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
			return fmt.Errorf("write settings: %w", err)
		}
	}
	return nil
}

// certificates hands over the site's CA bundle, under every name that
// installers and git read.
func (b *Builder) certificates(files, env map[string]string) error {
	if b.cfg.Index.CABundle == "" {
		return nil
	}
	pem, err := os.ReadFile(b.cfg.Index.CABundle)
	if err != nil {
		return &UserError{"the CA bundle cannot be read: " + err.Error(), "correct indexes.ca_bundle"}
	}
	files["ca.pem"] = string(pem)
	for _, name := range []string{"SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO"} {
		env[name] = settingsPath + "/ca.pem"
	}
	return nil
}

// shell writes variables as a file for sh. Values stand in single quotes, in
// which nothing but the quote itself has a meaning.
func shell(env map[string]string) string {
	names := make([]string, 0, len(env))
	for k, v := range env {
		if v != "" || strings.HasPrefix(k, "RM_") {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	var sb strings.Builder
	for _, k := range names {
		fmt.Fprintf(&sb, "export %s='%s'\n", k, strings.ReplaceAll(env[k], "'", `'\''`))
	}
	return sb.String()
}
