package pip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// Release is one version of a package with what can be installed of it.
type Release struct {
	Version  Version
	Wheels   []string    // file names
	Times    []time.Time // when each of Wheels was uploaded; builds for a new Python come later
	Sdist    bool
	Yanked   bool
	Python   string    // requires-python
	Uploaded time.Time // zero where the index does not say
	Link     string    // of one of its files; as the page writes it, or absolute from Releases
}

// maxPage bounds an index page.
const maxPage = 64 << 20

// ErrNoProject says that an index does not have a package.
var ErrNoProject = errors.New("the index has no such package")

// Releases lists the versions of a package on an index, oldest first, from its
// JSON (PEP 691, PEP 700) or HTML page (PEP 503).
func Releases(ctx context.Context, client *http.Client, index *url.URL, name string) ([]Release, error) {
	if client == nil {
		client = http.DefaultClient
	}
	u := *index
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + Normalise(name) + "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("list releases of %s: %w", name, err)
	}
	req.Header.Set("Accept", "application/vnd.pypi.simple.v1+json, text/html;q=0.1")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("list releases of %s: %w", name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("list releases of %s: %w", name, ErrNoProject)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list releases of %s: %s answers %s", name, u.Host, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("list releases of %s: %w", name, err)
	}
	list, err := ParseReleases(name, resp.Header.Get("Content-Type"), body)
	for i := range list {
		if link, err := resp.Request.URL.Parse(list[i].Link); err == nil {
			list[i].Link = link.String()
		}
	}
	return list, err
}

type indexFile struct {
	Filename string          `json:"filename"`
	URL      string          `json:"url"`
	Python   string          `json:"requires-python"`
	Yanked   json.RawMessage `json:"yanked"`
	Uploaded time.Time       `json:"upload-time"`
}

// ParseReleases reads an index page.
func ParseReleases(name, kind string, body []byte) ([]Release, error) {
	var files []indexFile
	if strings.Contains(kind, "json") {
		var page struct {
			Files []indexFile `json:"files"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("read releases of %s: %w", name, err)
		}
		files = page.Files
	} else {
		files = htmlFiles(body)
	}
	byVersion := map[string]*Release{}
	for _, f := range files {
		text, wheel := fileVersion(name, f.Filename)
		v, ok := ParseVersion(text)
		if !ok {
			continue
		}
		r := byVersion[text]
		if r == nil {
			r = &Release{Version: v, Python: f.Python, Link: f.URL}
			byVersion[text] = r
		}
		if wheel {
			r.Wheels, r.Times = append(r.Wheels, f.Filename), append(r.Times, f.Uploaded)
		} else {
			r.Sdist = true
		}
		r.Yanked = r.Yanked || len(f.Yanked) > 0 && string(f.Yanked) != "false" && string(f.Yanked) != "null"
		if r.Uploaded.IsZero() || !f.Uploaded.IsZero() && f.Uploaded.Before(r.Uploaded) {
			r.Uploaded = f.Uploaded
		}
	}
	var out []Release
	for _, r := range byVersion {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Release) int { return a.Version.Compare(b.Version) })
	return out, nil
}

func htmlFiles(body []byte) (out []indexFile) {
	z := html.NewTokenizer(strings.NewReader(string(body)))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return out
		case html.StartTagToken:
			tok := z.Token()
			if tok.Data != "a" {
				continue
			}
			var f indexFile
			for _, a := range tok.Attr {
				switch a.Key {
				case "href":
					link, _, _ := strings.Cut(a.Val, "#")
					f.URL = link
					f.Filename, _ = url.PathUnescape(path.Base(link))
				case "data-requires-python":
					f.Python = a.Val
				case "data-yanked":
					f.Yanked = json.RawMessage("true")
				}
			}
			out = append(out, f)
		}
	}
}

// fileVersion is the version in the name of a wheel or source distribution.
func fileVersion(name, file string) (version string, wheel bool) {
	if base, ok := strings.CutSuffix(file, ".whl"); ok {
		if parts := strings.Split(base, "-"); len(parts) >= 5 {
			return parts[1], true
		}
		return "", false
	}
	for _, ext := range []string{".tar.gz", ".zip", ".tar.bz2", ".tgz"} {
		base, ok := strings.CutSuffix(file, ext)
		if !ok {
			continue
		}
		for i := range base {
			if (base[i] == '-') && Normalise(base[:i]) == Normalise(name) {
				return base[i+1:], false
			}
		}
	}
	return "", false
}

var cpRE = regexp.MustCompile(`^cp3(\d+)$`)

// Runs says whether a wheel can be installed on a Python 3.minor of Linux with
// glibc, by its tags (PEP 425, PEP 600). arch is "x86_64" or "aarch64".
func Runs(wheel string, minor int, arch string) bool {
	parts := strings.Split(strings.TrimSuffix(wheel, ".whl"), "-")
	if len(parts) < 5 {
		return false
	}
	tags := parts[len(parts)-3:]
	python := false
	for t := range strings.SplitSeq(tags[0], ".") {
		m := cpRE.FindStringSubmatch(t)
		n := -1
		if m != nil {
			n, _ = strconv.Atoi(m[1])
		}
		python = python || t == "py3" || t == "py3"+strconv.Itoa(minor) || n == minor || n >= 0 && n <= minor && (strings.Contains(tags[1], "abi3") || tags[1] == "none")
	}
	if !python || strings.HasSuffix(tags[1], "t") && strings.HasPrefix(tags[1], "cp") {
		return false
	}
	for t := range strings.SplitSeq(tags[2], ".") {
		if t == "any" || strings.HasSuffix(t, arch) && (strings.HasPrefix(t, "manylinux") || strings.HasPrefix(t, "linux")) {
			return true
		}
	}
	return false
}

// Nearest orders releases by how many lie between them and a version, newer
// ones before older ones at the same distance. Yanked releases, those uploaded
// after newest (where it is not nil) and, unless the version is one itself,
// pre-releases are left out.
func Nearest(list []Release, to Version, newest *time.Time) []Release {
	var keep []Release
	for _, r := range list {
		late := newest != nil && !r.Uploaded.IsZero() && r.Uploaded.After(*newest)
		if !r.Yanked && !late && (!r.Version.Pre() || to.Pre()) {
			keep = append(keep, r)
		}
	}
	at, _ := slices.BinarySearchFunc(keep, to, func(r Release, v Version) int { return r.Version.Compare(v) })
	out := make([]Release, 0, len(keep))
	for up, down := at, at-1; up < len(keep) || down >= 0; {
		if up < len(keep) && (up-at <= at-1-down || down < 0) {
			out = append(out, keep[up])
			up++
			continue
		}
		out = append(out, keep[down])
		down--
	}
	return out
}
