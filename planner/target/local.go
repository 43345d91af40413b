package target

import (
	"net/url"
	"path"
	"strings"
	"unicode/utf8"
)

// isLocal holds the only spellings of a folder. "data/run1" without a leading
// "./" is not one: it would be taken for a hub model by its shape.
func isLocal(s string) bool {
	if s == "." || s == ".." || strings.HasPrefix(s, "~") {
		return true
	}
	for _, p := range []string{"/", "./", "../"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	_, ok := cutPrefixFold(s, "file:")
	return ok
}

func parseLocal(s string) (Target, error) {
	if rest, ok := cutPrefixFold(s, "file:"); ok {
		p, err := filePath(rest)
		if err != nil {
			return Target{}, err
		}
		s = p
	}
	switch {
	case s == "~":
		return localTarget("~")
	case strings.HasPrefix(s, "~/"):
		for _, seg := range strings.Split(s, "/") {
			if seg == ".." {
				return Target{}, refuseFix("write the folder from / on", `it has ".." below "~"`)
			}
		}
		return localTarget("~" + strings.TrimSuffix(path.Clean(s[1:]), "/"))
	case strings.HasPrefix(s, "~"):
		return Target{}, refuseFix("write ~/… for your own home, or the folder from / on", "another user's home folder is not looked up")
	case strings.HasPrefix(s, "/"):
		return localTarget(path.Clean(s))
	}
	p := path.Clean(s)
	if p != "." && p != ".." && !strings.HasPrefix(p, "../") {
		p = "./" + p
	}
	return localTarget(p)
}

// filePath reads what follows "file:": an absolute path, with or without an
// empty or "localhost" authority (RFC 8089).
func filePath(rest string) (string, error) {
	const fix = "write file:///absolute/path or ./relative/path"
	if rest, ok := strings.CutPrefix(rest, "//"); ok {
		host, _, _ := strings.Cut(rest, "/")
		if host != "" && !strings.EqualFold(host, "localhost") {
			return "", refuseFix(fix, "a file URL on the host %s cannot be read", Quote(host))
		}
	}
	u, err := url.Parse("file:" + rest)
	if err != nil || u.Opaque != "" || !strings.HasPrefix(u.Path, "/") {
		return "", refuseFix(fix, "the file URL has no absolute path")
	}
	if u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return "", refuseFix(fix, "a file URL has no query or fragment")
	}
	if !utf8.ValidString(u.Path) || strings.ContainsFunc(u.Path, hidden) {
		return "", refuseFix(fix, "the file URL encodes an invisible character")
	}
	return u.Path, nil
}

func localTarget(p string) (Target, error) {
	t := Target{Kind: Local, ID: p, Path: p, URL: p}
	if strings.HasPrefix(p, "/") {
		t.URL = (&url.URL{Scheme: "file", Path: p}).String()
	} else if strings.TrimSpace(p) != p {
		return Target{}, refuseFix("write the folder from / on, as a file: URL", "the name ends with a space")
	}
	return t, nil
}
