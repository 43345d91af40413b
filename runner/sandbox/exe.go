package sandbox

import (
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is the kernel's own limit on symlinks in one path (ELOOP).
const maxLinks = 40

// ExecutablePaths returns the paths that have to be visible read-only for the
// program to run: every link from the name it is called by to the file itself,
// and the prefix of a Python installation or virtual environment when the file
// belongs to one (PEP 405: pyvenv.cfg names its base as "home"). The prefix of
// anything else is not added, because "/home/me/.local/bin/tool" must not open
// "/home/me/.local". Only call it for links that no untrusted code could have
// made. It returns nil for a program that does not exist.
func ExecutablePaths(name, pathList string) []string {
	p := lookExecutable(name, pathList)
	var out []string
	for range maxLinks {
		if p == "" {
			return nil
		}
		out = append(out, p)
		out = append(out, pythonPrefixes(p)...)
		target, err := os.Readlink(p)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(p), target)
		}
		p = filepath.Clean(target)
	}
	// A link among the parent folders is not seen by Readlink above.
	if real, err := filepath.EvalSymlinks(p); err == nil && real != p {
		out = append(out, real)
		out = append(out, pythonPrefixes(real)...)
	}
	return out
}

func lookExecutable(name, pathList string) string {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			return "" // relative to Dir, which is visible anyway
		}
		return filepath.Clean(name)
	}
	for _, dir := range filepath.SplitList(pathList) {
		if !filepath.IsAbs(dir) {
			continue
		}
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// pythonPrefixes returns the installation that an interpreter belongs to.
func pythonPrefixes(exe string) []string {
	if filepath.Base(filepath.Dir(exe)) != "bin" {
		return nil
	}
	prefix := filepath.Dir(filepath.Dir(exe))
	if prefix == "/" || prefix == "/usr" {
		return nil
	}
	var out []string
	if landmarks, _ := filepath.Glob(escapeGlob(prefix) + "/lib/python*/os.py"); len(landmarks) > 0 {
		out = append(out, prefix)
	}
	cfg, err := os.ReadFile(filepath.Join(prefix, "pyvenv.cfg"))
	if err != nil {
		return out
	}
	out = append(out, prefix)
	for line := range strings.Lines(string(cfg)) {
		key, value, ok := strings.Cut(line, "=")
		if home := strings.TrimSpace(value); ok && strings.TrimSpace(key) == "home" && filepath.IsAbs(home) {
			base := filepath.Dir(filepath.Clean(home))
			if landmarks, _ := filepath.Glob(escapeGlob(base) + "/lib/python*/os.py"); len(landmarks) > 0 && base != "/usr" {
				out = append(out, base)
			}
		}
	}
	return out
}

func escapeGlob(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}
