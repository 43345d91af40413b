package fetch

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	// maxRatio is how many times its size a compressed body may grow. Text
	// and JSON stay below 50, a bomb is near 1000.
	maxRatio = 200
	// ratioFrom is where the ratio begins to count, in decompressed bytes: a
	// short page of blanks is no bomb.
	ratioFrom = 1 << 20
	// progressStep is how many bytes pass between two notes about a body.
	progressStep = 1 << 20
)

// idleError marks the end of a body that stopped arriving.
type idleError struct{ TimeoutError }

func tooLarge(j *job, reason string) *TooLargeError {
	return &TooLargeError{URL: j.url, Limit: j.MaxBytes, Reason: reason}
}

// partial is the part of a body that has arrived; what an attempt leaves, the
// next one may resume.
type partial struct {
	f    *os.File
	h    hash.Hash
	size int64
	head []byte
	etag string // strong and of an uncompressed body, or ""
}

func (p *partial) resumable() bool { return p.f != nil && p.size > 0 && p.etag != "" }

// reset begins again with an empty file.
func (p *partial) reset(c *cache) (err error) {
	if p.f == nil {
		if p.f, err = c.temp(); err != nil {
			return err
		}
	}
	if err = p.f.Truncate(0); err == nil {
		_, err = p.f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("empty cache file: %w", err)
	}
	p.h, p.size, p.head, p.etag = sha256.New(), 0, nil, ""
	return nil
}

func (p *partial) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	p.h.Write(b[:n])
	p.size += int64(n)
	if len(p.head) < maxExcerpt {
		p.head = append(p.head, b[:min(n, maxExcerpt-len(p.head))]...)
	}
	if err != nil {
		return n, fmt.Errorf("write cache file: %w", err)
	}
	return n, nil
}

func (p *partial) remove() {
	if p.f != nil {
		_ = p.f.Close()
		_ = os.Remove(p.f.Name()) // a file that stays is pruned later
		p.f = nil
	}
}

// readBody takes the body into a file, under all caps. stop ends the request.
func (c *Client) readBody(ctx context.Context, stop context.CancelCauseFunc, j *job, resp *http.Response, p *partial) (*answer, error) {
	status := resp.StatusCode
	resumed := status == http.StatusPartialContent && j.Length == 0
	if resumed && !(p.resumable() && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", p.size))) {
		p.etag = "" // ask for all of it
		return nil, &dropped{errors.New("a part of the body came that was not asked for")}
	}
	if !resumed {
		if err := p.reset(c.cache); err != nil {
			return nil, err
		}
	}
	src, err := c.openBody(ctx, stop, j, resp, p.size)
	if err != nil {
		return nil, err
	}
	if src.packed == nil && strings.HasPrefix(resp.Header.Get("Etag"), `"`) &&
		(resumed || resp.Header.Get("Accept-Ranges") == "bytes") && j.Length == 0 && status < 300 {
		p.etag = resp.Header.Get("Etag")
	}
	err = src.copyTo(p)
	src.idle.Stop()
	if err != nil {
		var big *TooLargeError
		if errors.As(err, &big) || errors.Is(err, os.ErrClosed) || isPathError(err) {
			return nil, err
		}
		return nil, c.explain(ctx, j, err)
	}
	if resumed {
		status = http.StatusOK
	} else if j.Length > 0 && status == http.StatusOK {
		if status = http.StatusPartialContent; p.size == 0 {
			status = http.StatusRequestedRangeNotSatisfiable
		}
	}
	a := &answer{
		status: status, header: keep(resp.Header), path: p.f.Name(), head: p.head,
		sum: hex.EncodeToString(p.h.Sum(nil)), size: p.size,
	}
	err = p.f.Close()
	p.f = nil // the answer has it
	if err != nil {
		a.discard()
		return nil, fmt.Errorf("close cache file: %w", err)
	}
	return a, nil
}

func isPathError(err error) bool {
	var pe *os.PathError
	return errors.As(err, &pe)
}

// source is a body on its way, counted before and after decompression.
type source struct {
	c      *Client
	j      *job
	raw    io.Reader
	packed *gzip.Reader // nil where the body is not compressed
	arrived,
	total int64
	idle *time.Timer
	// skip and want cut a part out of a whole body, where the site ignored
	// Range; want is -1 for all.
	skip, want int64
}

// Read counts compressed bytes and keeps the idle timer from going off.
func (s *source) Read(b []byte) (int, error) {
	n, err := s.raw.Read(b)
	s.arrived += int64(n)
	if n > 0 {
		s.idle.Reset(s.c.cfg.Timeouts.Idle)
	}
	return n, err
}

func (c *Client) openBody(ctx context.Context, stop context.CancelCauseFunc, j *job, resp *http.Response, have int64) (*source, error) {
	s := &source{c: c, j: j, raw: resp.Body, total: -1, want: -1}
	if resp.ContentLength >= 0 {
		s.total = have + resp.ContentLength
	}
	if j.Length > 0 && resp.StatusCode < 300 {
		s.want = j.Length
		if resp.StatusCode == http.StatusOK {
			s.skip = j.Offset
		} else if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", j.Offset)) {
			return nil, &dropped{errors.New("a part of the body came that was not asked for")}
		}
	} else if s.total > j.MaxBytes {
		return nil, tooLarge(j, fmt.Sprintf("%d bytes are announced, more than the cap of %d", s.total, j.MaxBytes))
	}
	s.idle = time.AfterFunc(c.cfg.Timeouts.Idle, func() {
		stop(&idleError{TimeoutError{URL: j.url, What: "nothing more arrived", After: c.cfg.Timeouts.Idle}})
	})
	switch enc := strings.ToLower(resp.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		if resp.ContentLength == 0 {
			break
		}
		var err error
		if s.packed, err = gzip.NewReader(s); err != nil {
			s.idle.Stop()
			return nil, c.explain(ctx, j, fmt.Errorf("open compressed body: %w", err))
		}
	default:
		s.idle.Stop()
		return nil, fmt.Errorf("get %s: its body has the encoding %q, which was not asked for", j.url, clip(enc))
	}
	return s, nil
}

// copyTo moves the body, checking the caps after each piece.
func (s *source) copyTo(p *partial) error {
	var src io.Reader = s
	if s.packed != nil {
		src = s.packed
	}
	buf := make([]byte, 64<<10)
	unpacked, skip, noted := p.size, s.skip, p.size
	for {
		n, err := src.Read(buf)
		unpacked += int64(n)
		if unpacked > s.j.MaxBytes {
			return tooLarge(s.j, fmt.Sprintf("its body is longer than the cap of %d bytes", s.j.MaxBytes))
		}
		if s.packed != nil && unpacked > ratioFrom && unpacked > maxRatio*s.arrived {
			return tooLarge(s.j, fmt.Sprintf("its body grows more than %d times when it is decompressed", maxRatio))
		}
		piece := buf[:n]
		if cut := min(skip, int64(n)); cut > 0 {
			piece, skip = piece[cut:], skip-cut
		}
		if s.want >= 0 && int64(len(piece)) > s.want-p.size {
			piece = piece[:s.want-p.size]
		}
		if _, werr := p.Write(piece); werr != nil {
			return werr
		}
		if unpacked-noted >= progressStep {
			noted = unpacked
			s.c.cfg.Progress(Progress{URL: s.j.url, Phase: "body", Bytes: p.size, Total: s.total})
		}
		if err == io.EOF || s.want >= 0 && p.size == s.want {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
