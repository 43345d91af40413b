package bucket

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	testKey    = "AKIATESTTESTTESTTEST"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	testBucket = "results"
)

// s3 is an S3 server in memory that believes nobody: every request has to be
// signed as in "Signature Version 4 signing process" of the S3 API reference,
// and its body has to have the hash that was signed.
type s3 struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string]object
	parts   map[string]map[int][]byte // by upload
	uploads int
	puts    map[string]int // accepted writes by key
	// plain is a store that knows no conditions and ignores them.
	plain bool
	// fault, when not nil, may answer or drop a request; after says that it was
	// carried out already, so that only the answer is lost.
	fault func(r *http.Request, after bool) bool
}

type object struct {
	body []byte
	meta http.Header
	at   time.Time
}

func newS3(t *testing.T) *s3 {
	t.Helper()
	s := &s3{objects: map[string]object{}, parts: map[string]map[int][]byte{}, puts: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", testKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", testSecret)
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return s
}

func (s *s3) url(prefix string) string {
	return "s3://" + testBucket + prefix + "?region=us-east-1&use_path_style=true&endpoint=" + url.QueryEscape(s.URL)
}

func (s *s3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = signed(r, body)
	}
	if err != nil {
		refuse(w, 403, "SignatureDoesNotMatch", err.Error())
		return
	}
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(r, false) {
		panic(http.ErrAbortHandler)
	}
	rec := httptest.NewRecorder()
	s.mu.Lock()
	s.serve(rec, r, body)
	s.mu.Unlock()
	if fault != nil && fault(r, true) {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

func refuse(w http.ResponseWriter, code int, name, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(code)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>%s</Message></Error>", name, message)
}

func (s *s3) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	if bucket != testBucket {
		refuse(w, 404, "NoSuchBucket", "The specified bucket does not exist")
		return
	}
	switch {
	case r.Method == "GET" && key == "":
		s.list(w, q)
	case r.Method == "POST" && q.Has("uploads"):
		s.uploads++
		id := strconv.Itoa(s.uploads)
		s.parts[id] = map[int][]byte{}
		s.objects["\x00"+id] = object{meta: metaOf(r)}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>", bucket, key, id)
	case r.Method == "PUT" && q.Has("partNumber"):
		n, _ := strconv.Atoi(q.Get("partNumber"))
		s.parts[q.Get("uploadId")][n] = body
		w.Header().Set("ETag", etag(body))
	case r.Method == "POST" && q.Has("uploadId"):
		s.complete(w, r, key, q.Get("uploadId"))
	case r.Method == "DELETE" && q.Has("uploadId"):
		delete(s.parts, q.Get("uploadId"))
		w.WriteHeader(204)
	case r.Method == "PUT":
		if s.put(w, r, key, object{body, metaOf(r), time.Now()}) {
			w.Header().Set("ETag", etag(body))
		}
	case r.Method == "DELETE":
		delete(s.objects, key)
		w.WriteHeader(204)
	case r.Method == "GET", r.Method == "HEAD":
		s.get(w, r, key)
	default:
		refuse(w, 405, "MethodNotAllowed", r.Method)
	}
}

func (s *s3) put(w http.ResponseWriter, r *http.Request, key string, o object) bool {
	if _, there := s.objects[key]; there && r.Header.Get("If-None-Match") == "*" && !s.plain {
		refuse(w, 412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
		return false
	}
	s.objects[key] = o
	s.puts[key]++
	return true
}

func (s *s3) complete(w http.ResponseWriter, r *http.Request, key, id string) {
	var body []byte
	for _, n := range slices.Sorted(maps.Keys(s.parts[id])) {
		body = append(body, s.parts[id][n]...)
	}
	if !s.put(w, r, key, object{body, s.objects["\x00"+id].meta, time.Now()}) {
		return
	}
	delete(s.parts, id)
	delete(s.objects, "\x00"+id)
	fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><ETag>%s</ETag></CompleteMultipartUploadResult>", testBucket, key, etag(body))
}

func (s *s3) get(w http.ResponseWriter, r *http.Request, key string) {
	o, there := s.objects[key]
	if !there {
		refuse(w, 404, "NoSuchKey", "The specified key does not exist.")
		return
	}
	maps.Copy(w.Header(), o.meta)
	w.Header().Set("ETag", etag(o.body))
	w.Header().Set("Last-Modified", o.at.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", strconv.Itoa(len(o.body)))
	if r.Method == "GET" {
		w.Write(o.body)
	}
}

// list answers in pages of three, so that every test turns them.
func (s *s3) list(w http.ResponseWriter, q url.Values) {
	const page = 3
	type entry struct {
		Key, ETag, LastModified string
		Size                    int
	}
	var out struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name, Prefix          string
		KeyCount, MaxKeys     int
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []entry
	}
	out.Name, out.Prefix, out.MaxKeys = testBucket, q.Get("prefix"), page
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if !strings.HasPrefix(key, out.Prefix) || key <= q.Get("continuation-token") || key[0] == 0 {
			continue
		}
		if len(out.Contents) == page {
			out.IsTruncated, out.NextContinuationToken = true, out.Contents[page-1].Key
			break
		}
		o := s.objects[key]
		out.Contents = append(out.Contents, entry{key, etag(o.body), o.at.UTC().Format(time.RFC3339), len(o.body)})
	}
	out.KeyCount = len(out.Contents)
	xml.NewEncoder(w).Encode(out)
}

func metaOf(r *http.Request) http.Header {
	out := http.Header{"Content-Type": {r.Header.Get("Content-Type")}}
	for k, v := range r.Header {
		if strings.HasPrefix(k, "X-Amz-Meta-") {
			out[k] = v
		}
	}
	return out
}

func etag(b []byte) string { return fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(b))) }

// signed checks a request's signature and the hash of its body.
func signed(r *http.Request, body []byte) error {
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return fmt.Errorf("it is not signed")
	}
	part := map[string]string{}
	for _, p := range strings.Split(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		part[k] = v
	}
	scope := strings.SplitN(part["Credential"], "/", 2)
	if len(scope) != 2 || scope[0] != testKey {
		return fmt.Errorf("the access key %q is not known", scope[0])
	}
	sum := r.Header.Get("X-Amz-Content-Sha256")
	if have := hex.EncodeToString(hashed(body)); sum != have && sum != "UNSIGNED-PAYLOAD" {
		return fmt.Errorf("the body's hash is %s, signed was %s", have, sum)
	}
	var headers bytes.Buffer
	for _, name := range strings.Split(part["SignedHeaders"], ";") {
		v := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			v = r.Host
		case "content-length":
			v = strconv.FormatInt(r.ContentLength, 10)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.Join(strings.Fields(v), " "))
	}
	if !slices.Contains(strings.Split(part["SignedHeaders"], ";"), "host") {
		return fmt.Errorf("the host is not signed")
	}
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20")
	canonical := strings.Join([]string{r.Method, r.URL.EscapedPath(), query, headers.String(), part["SignedHeaders"], sum}, "\n")
	date := r.Header.Get("X-Amz-Date")
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope[1] + "\n" + hex.EncodeToString(hashed([]byte(canonical)))
	key := []byte("AWS4" + testSecret)
	for _, s := range strings.Split(scope[1], "/") { // day, region, service, "aws4_request"
		key = keyed(key, s)
	}
	if want := hex.EncodeToString(keyed(key, text)); !hmac.Equal([]byte(want), []byte(part["Signature"])) {
		return fmt.Errorf("the signature is not the one computed of %q", canonical)
	}
	return nil
}

func hashed(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func keyed(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, text)
	return h.Sum(nil)
}
