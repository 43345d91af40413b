package git

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/config"
)

// whyAbsent is said of a file whose content a local repository does not hold:
// it is a partial clone (git clone --filter), whose server alone has the rest.
const whyAbsent = "the local repository is partial and does not hold its content"

// Skipped is a path of the commit that was not materialised, and why.
type Skipped struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Copied is a symbolic link that was materialised as a copy of its target.
type Copied struct {
	Path   string `json:"path"`
	Target string `json:"target"` // as the link states it
}

// Pointer is a git LFS pointer: the file in the checkout is the pointer's
// text, the content it stands for was not fetched.
type Pointer struct {
	Path string `json:"path"`
	OID  string `json:"oid"`  // SHA-256 of the content, hex
	Size int64  `json:"size"` // of the content, in bytes
}

// Submodule is a submodule whose files are part of the checkout.
type Submodule struct {
	Path   string `json:"path"`
	URL    string `json:"url"`
	Commit string `json:"commit"`
}

// parsePointer reads a git LFS pointer, version 1
// (github.com/git-lfs/git-lfs, docs/spec.md: UTF-8 text, under 1024 bytes,
// "key value" lines, version first).
func parsePointer(b []byte, size int64) (p Pointer, ok bool) {
	if size >= 1024 || int64(len(b)) != size ||
		!bytes.HasPrefix(b, []byte("version https://git-lfs.github.com/spec/v1\n")) {
		return p, false
	}
	sized := false
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "oid":
			p.OID, _ = strings.CutPrefix(value, "sha256:")
		case "size":
			n, err := strconv.ParseInt(value, 10, 64)
			p.Size, sized = n, err == nil && n >= 0
		}
	}
	return p, sized && len(p.OID) == 64 && strings.Trim(p.OID, "0123456789abcdef") == ""
}

// moduleURLs reads .gitmodules: the url of each path. A file that cannot be
// read, or an entry without a path, gives nothing: the submodule is then
// reported without a url. Of two entries for a path neither is used.
func moduleURLs(b []byte) map[string]string {
	urls := map[string]string{}
	m := config.NewModules()
	if len(b) == 0 || m.Unmarshal(b) != nil {
		return urls
	}
	twice := map[string]bool{}
	for _, s := range m.Submodules {
		if s.Validate() != nil || unsafePath(s.Path) != "" {
			continue
		}
		if _, ok := urls[s.Path]; ok {
			twice[s.Path] = true
		}
		urls[s.Path] = s.URL
	}
	for p := range twice {
		delete(urls, p)
	}
	return urls
}
