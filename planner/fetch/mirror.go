package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxName is the longest file name of a mirror, in bytes. File systems
	// allow 255; the sidecar's suffix needs some of them.
	maxName    = 200
	metaSuffix = ".meta.json"
	// cutMark stands before the hash in a name that was cut. A percent sign is
	// otherwise always followed by two digits.
	cutMark = "%~"
)

// sidecar says what the body of a mirrored answer does not.
type sidecar struct {
	URL         string      `json:"url"`
	FinalURL    string      `json:"final_url,omitempty"`
	Status      int         `json:"status"`
	ContentType string      `json:"content_type,omitempty"`
	FetchedAt   time.Time   `json:"fetched_at,omitzero"`
	Header      http.Header `json:"header,omitempty"`
}

// mirrorName is the slash-separated file of a canonical location below a
// mirror; part is a byte range or "". See the package comment.
func mirrorName(host, escapedPath, query, part string) string {
	names := strings.Split(escapeSegment(host)+escapedPath, "/")
	for i, n := range names {
		if strings.HasPrefix(n, ".") {
			names[i] = "%2E" + n[1:]
		}
	}
	last := &names[len(names)-1]
	switch {
	case part != "":
		*last += "@" + query + "@" + part
	case query != "" || *last == "":
		*last += "@" + query
	}
	if stem, ok := strings.CutSuffix(*last, metaSuffix); ok {
		*last = stem + ".meta%2Ejson"
	}
	for i, n := range names {
		names[i] = cutName(n)
	}
	return strings.Join(names, "/")
}

func cutName(n string) string {
	if len(n) <= maxName {
		return n
	}
	sum := sha256.Sum256([]byte(n))
	keep := maxName - len(cutMark) - 2*16
	for n[keep-1] == '%' || n[keep-2] == '%' {
		keep-- // never end inside of an escape
	}
	return n[:keep] + cutMark + hex.EncodeToString(sum[:16])
}

// otherName is a second name for the same file, different from any first name
// also where letter case is ignored: below the host every letter outside of an
// escape is percent-encoded.
func otherName(name string) string {
	names := strings.Split(name, "/")
	for i, n := range names[1:] {
		var b strings.Builder
		for k := 0; k < len(n); k++ {
			switch ch := n[k]; {
			case ch == '%' && k+2 < len(n):
				b.WriteString(n[k : k+3])
				k += 2
			case ch|0x20 >= 'a' && ch|0x20 <= 'z':
				fmt.Fprintf(&b, "%%%02X", ch)
			default:
				b.WriteByte(ch)
			}
		}
		names[i+1] = cutName(b.String())
	}
	return strings.Join(names, "/")
}

// mirror reads a folder in the layout of the package comment, through
// [os.Root], so that no link in it leads outside.
type mirror struct {
	dir  string
	root *os.Root
	// folds is true on a file system that ignores letter case.
	folds bool
}

func openMirror(dir string) (*mirror, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &configError{fmt.Sprintf("open mirror %s: %v", dir, err), "give the folder of a mirror, made with `repromill mirror add TARGET`"}
	}
	m := &mirror{dir: dir, root: root}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("read mirror %s: %w", dir, err)
	}
	for _, e := range entries {
		if swapped := strings.ToUpper(e.Name()); swapped != e.Name() {
			_, err := root.Lstat(swapped)
			m.folds = err == nil
			break
		}
	}
	return m, nil
}

// find opens the body of a name and gives the name it was found under. The
// error is fs.ErrNotExist where there is none.
func (m *mirror) find(name string) (*os.File, string, error) {
	other := otherName(name)
	for _, n := range []string{name, name + "@", other, other + "@"} {
		f, err := m.root.Open(n)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
				continue
			}
			return nil, "", fmt.Errorf("open mirror file: %w", err)
		}
		info, err := f.Stat()
		if err == nil && info.Mode().IsRegular() && m.sameCase(n) {
			return f, n, nil
		}
		_ = f.Close()
		if err != nil {
			return nil, "", fmt.Errorf("open mirror file: %w", err)
		}
	}
	return nil, "", fs.ErrNotExist
}

// sameCase reports whether every part of a name that was opened is really
// spelled so.
func (m *mirror) sameCase(name string) bool {
	if !m.folds {
		return true
	}
	for name != "." {
		dir, base := path.Dir(name), path.Base(name)
		entries, err := fs.ReadDir(m.root.FS(), dir)
		if err != nil {
			return false
		}
		found := false
		for _, e := range entries {
			found = found || e.Name() == base
		}
		if !found {
			return false
		}
		name = dir
	}
	return true
}

// sidecarOf is the name of the sidecar of a body found under name.
func sidecarOf(name string) string {
	if base := path.Base(name); base != "@" {
		name = strings.TrimSuffix(name, "@")
	}
	return name + metaSuffix
}

// meta reads the sidecar of a body, or makes up the one it would have.
func (m *mirror) meta(name string) (*sidecar, error) {
	s := &sidecar{Status: http.StatusOK}
	f, err := m.root.Open(sidecarOf(name))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open mirror sidecar: %w", err)
	}
	defer f.Close()
	if err := decodeStrict(f, s); err != nil || s.Status < 200 || s.Status > 599 {
		if err == nil {
			err = fmt.Errorf("status %d", s.Status)
		}
		return nil, &configError{fmt.Sprintf("read mirror file %s: %v", sidecarOf(name), err), "correct the file, or remove it"}
	}
	return s, nil
}

// maxDocument caps the JSON documents of a mirror, in bytes.
const maxDocument = 4 << 20

// decodeStrict reads one JSON document of known fields.
func decodeStrict(r io.Reader, v any) error {
	lr := &io.LimitedReader{R: r, N: maxDocument + 1}
	d := json.NewDecoder(lr)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON document, or a longer one than 4 MiB")
	}
	return nil
}

// fromMirror answers from the mirror.
func (c *Client) fromMirror(j *job) (*Response, error) {
	host := j.loc.place.host
	names := []string{mirrorName(host, j.loc.path, j.loc.query, "")}
	if part := j.rangeSpec(); part != "" {
		names = append([]string{mirrorName(host, j.loc.path, j.loc.query, part)}, names...)
	}
	for i, name := range names {
		f, found, err := c.mirror.find(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return c.mirrored(j, f, found, i == len(names)-1)
	}
	return nil, &NotInMirrorError{URL: j.url, Mirror: c.cfg.Mirror, File: names[0]}
}

// mirrored makes the answer of a mirror's file; whole says that a range, if one
// is asked for, has still to be cut from it.
func (c *Client) mirrored(j *job, f *os.File, name string, whole bool) (*Response, error) {
	s, err := c.mirror.meta(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read mirror file: %w", err)
	}
	res := &Response{
		URL: j.url, FinalURL: s.FinalURL, Status: s.Status, Header: http.Header{},
		Path: filepath.Join(c.cfg.Mirror, filepath.FromSlash(name)), Size: info.Size(), FetchedAt: s.FetchedAt, FromMirror: true,
	}
	if res.FinalURL == "" {
		res.FinalURL = j.url
	}
	for k, v := range s.Header {
		res.Header[http.CanonicalHeaderKey(k)] = v
	}
	var src io.Reader = f
	if j.Length > 0 && whole && s.Status == http.StatusOK {
		res.Status, res.Path = http.StatusPartialContent, ""
		res.Size = min(j.Length, max(0, info.Size()-j.Offset))
		if res.Size == 0 {
			res.Status = http.StatusRequestedRangeNotSatisfiable
		}
		res.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", j.Offset, j.Offset+res.Size-1, info.Size()))
		src = io.NewSectionReader(f, j.Offset, res.Size)
	}
	if res.Size > j.MaxBytes {
		return nil, tooLarge(j, fmt.Sprintf("%d bytes, more than the cap of %d", res.Size, j.MaxBytes))
	}
	h := sha256.New()
	if j.NoBody && res.Path != "" && res.Status < 300 {
		_, err = io.Copy(h, src)
	} else {
		res.Body = make([]byte, res.Size)
		_, err = io.ReadFull(src, res.Body)
		h.Write(res.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("read mirror file: %w", err)
	}
	res.SHA256 = hex.EncodeToString(h.Sum(nil))
	if res.Header.Get("Content-Type") == "" {
		if s.ContentType == "" {
			s.ContentType = guessType(res.Body)
		}
		res.Header.Set("Content-Type", s.ContentType)
	}
	return res, nil
}

// guessType is the media type of a mirrored body without a sidecar.
func guessType(body []byte) string {
	if head := strings.TrimSpace(string(body[:min(len(body), 64)])); strings.HasPrefix(head, "{") || strings.HasPrefix(head, "[") {
		if json.Valid(body) {
			return "application/json"
		}
	}
	return http.DetectContentType(body)
}
