package fetch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// overlayFile is the name of the overlay in a mirror.
const overlayFile = "overlay.json"

// Overlay is what a mirror adds of its own to what the sites say.
type Overlay struct {
	Links []OverlayLink `json:"links,omitempty"`
	// Trees maps the URL of a git repository to a plain folder that stands for
	// it, slash-separated and relative to the mirror. It may lie beside the
	// mirror ("../papers/2604.08075").
	Trees map[string]string `json:"trees,omitempty"`
}

// OverlayLink says that a paper's code lies somewhere. It is stated by the
// mirror, not by the paper.
type OverlayLink struct {
	// Arxiv is the paper's id without a version.
	Arxiv string `json:"arxiv"`
	URL   string `json:"url"`
	Note  string `json:"note,omitempty"`
	// Simulated marks code that simulates what the paper measured.
	Simulated bool `json:"simulated,omitempty"`
}

// arxivID matches both schemes of arXiv ids, without a version.
var arxivID = regexp.MustCompile(`^(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})$`)

// Overlay returns the mirror's overlay; it is empty without a mirror.
func (c *Client) Overlay() Overlay {
	return Overlay{Links: slices.Clone(c.overlay.Links), Trees: maps.Clone(c.overlay.Trees)}
}

// overlay reads the mirror's overlay, if it has one.
func (m *mirror) overlay() (Overlay, error) {
	f, err := m.root.Open(overlayFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Overlay{}, nil
	}
	if err != nil {
		return Overlay{}, fmt.Errorf("open overlay: %w", err)
	}
	defer f.Close()
	o, err := readOverlay(f)
	if err != nil {
		return Overlay{}, &configError{
			fmt.Sprintf("read %s of mirror %s: %v", overlayFile, m.dir, err),
			"correct the file; it holds links [{arxiv, url, note, simulated}] and trees {git URL: folder}",
		}
	}
	return o, nil
}

// readOverlay reads and checks an overlay.
func readOverlay(r io.Reader) (Overlay, error) {
	var o Overlay
	if err := decodeStrict(r, &o); err != nil {
		return Overlay{}, err
	}
	seen := map[OverlayLink]bool{}
	for i, l := range o.Links {
		if !arxivID.MatchString(l.Arxiv) {
			return Overlay{}, fmt.Errorf("links[%d]: %q is not an arXiv id without a version", i, clip(l.Arxiv))
		}
		if err := checkGitURL(l.URL); err != nil {
			return Overlay{}, fmt.Errorf("links[%d]: %w", i, err)
		}
		key := OverlayLink{Arxiv: l.Arxiv, URL: l.URL}
		if seen[key] {
			return Overlay{}, fmt.Errorf("links[%d]: %s is linked to %s twice", i, l.Arxiv, l.URL)
		}
		seen[key] = true
	}
	for u, dir := range o.Trees {
		if err := checkGitURL(u); err != nil {
			return Overlay{}, fmt.Errorf("trees: %w", err)
		}
		if dir == "" || path.IsAbs(dir) || path.Clean(dir) != dir || strings.ContainsAny(dir, "\\\x00") || dir == ".." || dir == "." {
			return Overlay{}, fmt.Errorf("trees: %q is not a clean path relative to the mirror", clip(dir))
		}
	}
	return o, nil
}

func checkGitURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not a plain https URL", clip(raw))
	}
	return nil
}
