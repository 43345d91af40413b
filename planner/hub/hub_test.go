package hub

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/model"
)

const modelID = "ada-example/large"

// sparse is a file that begins with a header and is zero after it.
type sparse struct {
	head []byte
	size int64
	at   int64
}

func (s *sparse) Read(b []byte) (int, error) {
	if s.at >= s.size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), s.size-s.at)]
	clear(b)
	if s.at < int64(len(s.head)) {
		copy(b, s.head[s.at:])
	}
	s.at += int64(len(b))
	return len(b), nil
}

func (s *sparse) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		s.at = offset
	case io.SeekCurrent:
		s.at += offset
	case io.SeekEnd:
		s.at = s.size + offset
	}
	return s.at, nil
}

type tensor struct {
	name, dtype string
	shape       []int64
	bytes       int64
}

func header(tensors []tensor) *sparse {
	var b strings.Builder
	b.WriteByte('{')
	var at int64
	for i, t := range tensors {
		if i > 0 {
			b.WriteByte(',')
		}
		shape := strings.ReplaceAll(fmt.Sprint(t.shape), " ", ",")
		fmt.Fprintf(&b, `"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, t.name, t.dtype, shape, at, at+t.bytes)
		at += t.bytes
	}
	b.WriteByte('}')
	head := binary.LittleEndian.AppendUint64(nil, uint64(b.Len()))
	head = append(head, b.String()...)
	return &sparse{head: head, size: int64(len(head)) + at}
}

// llama405 is Llama-3.1-405B in FP8 with a scale per tensor as Model Optimizer
// writes it: 406 GB in files of 5 GB.
func llama405() (config, index string, files map[string]*sparse) {
	config = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":16384,"intermediate_size":53248,"num_attention_heads":128,
"num_hidden_layers":126,"num_key_value_heads":8,"head_dim":128,"vocab_size":128256,"max_position_embeddings":131072,"tie_word_embeddings":false,
"torch_dtype":"bfloat16","quantization_config":{"quant_method":"modelopt","quant_algo":"FP8","ignore":["lm_head"]}}`
	var all []tensor
	linear := func(name string, out, in int64) {
		all = append(all, tensor{name + ".weight", "F8_E4M3", []int64{out, in}, out * in},
			tensor{name + ".weight_scale", "F32", nil, 4}, tensor{name + ".input_scale", "F32", nil, 4})
	}
	plain := func(name string, shape ...int64) {
		n := int64(2)
		for _, d := range shape {
			n *= d
		}
		all = append(all, tensor{name + ".weight", "BF16", shape, n})
	}
	plain("model.embed_tokens", 128256, 16384)
	for i := range 126 {
		p := fmt.Sprintf("model.layers.%d.", i)
		linear(p+"self_attn.q_proj", 16384, 16384)
		linear(p+"self_attn.k_proj", 1024, 16384)
		linear(p+"self_attn.v_proj", 1024, 16384)
		linear(p+"self_attn.o_proj", 16384, 16384)
		linear(p+"mlp.gate_proj", 53248, 16384)
		linear(p+"mlp.up_proj", 53248, 16384)
		linear(p+"mlp.down_proj", 16384, 53248)
		plain(p+"input_layernorm", 16384)
		plain(p+"post_attention_layernorm", 16384)
	}
	plain("model.norm", 16384)
	plain("lm_head", 128256, 16384)
	var shards [][]tensor
	var size int64
	for _, t := range all {
		if len(shards) == 0 || size+t.bytes > 5e9 {
			shards, size = append(shards, nil), 0
		}
		shards[len(shards)-1] = append(shards[len(shards)-1], t)
		size += t.bytes
	}
	files = map[string]*sparse{}
	var entries []string
	for i, s := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		files[name] = header(s)
		for _, t := range s {
			entries = append(entries, strconv.Quote(t.name)+":"+strconv.Quote(name))
		}
	}
	return config, `{"metadata":{},"weight_map":{` + strings.Join(entries, ",") + `}}`, files
}

// serve answers as the hub does, and counts the bytes of bodies.
func serve(t testing.TB, config, index string, files map[string]*sparse) (*fetch.Client, *atomic.Int64) {
	t.Helper()
	var sent atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		counted := &counting{ResponseWriter: w, n: &sent}
		f := files[name]
		switch {
		case name == "config.json":
			_, _ = io.WriteString(counted, config)
		case name == "model.safetensors.index.json" && index != "":
			_, _ = io.WriteString(counted, index)
		case f != nil:
			w.Header().Set("Etag", `"`+name+`"`)
			http.ServeContent(counted, r, name, time.Time{}, &sparse{head: f.head, size: f.size})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return client(t, srv.URL), &sent
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}

func client(t testing.TB, endpoint string) *fetch.Client {
	t.Helper()
	c, err := fetch.New(fetch.Config{
		CacheDir: t.TempDir(), Endpoints: map[fetch.Site]string{fetch.HF: endpoint}, Limits: map[fetch.Site]fetch.Limit{fetch.HF: {Conns: 4}},
		Retry: fetch.Retry{Attempts: 2, Base: time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func sizes(files map[string]*sparse, known bool) map[string]int64 {
	out := map[string]int64{"config.json": 0, "model.safetensors.index.json": 0}
	for name, f := range files {
		if out[name] = 0; known {
			out[name] = f.size
		}
	}
	return out
}

// TestHeadersOfALargeCheckpoint reads 406 GB worth of headers with less than
// 2 MB on the wire, whether the sizes of files are known beforehand or not.
func TestHeadersOfALargeCheckpoint(t *testing.T) {
	config, index, files := llama405()
	for _, known := range []bool{true, false} {
		c, sent := serve(t, config, index, files)
		src := New(Config{Client: c, ID: modelID, Revision: "main", Sizes: sizes(files, known)})
		start := time.Now()
		got, err := model.ReadCheckpoint(t.Context(), src, model.CheckpointConfig{Header: model.HeaderConfig{Prefetch: 8 << 10}})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Problems) != 0 || got.Census.Params != 405_853_388_800 || got.Census.Bytes < 405e9 || len(got.Shards) != len(files) {
			t.Errorf("%d parameters in %d files, %d bytes, problems %v", got.Census.Params, len(got.Shards), got.Census.Bytes, got.Problems)
		}
		if sent.Load() > 2_000_000 {
			t.Errorf("%d bytes were sent", sent.Load())
		}
		requests, bytes := src.Traffic()
		if bytes != sent.Load() {
			t.Errorf("the source counts %d bytes, the server %d", bytes, sent.Load())
		}
		t.Logf("sizes known %v: %d files, %.1f GB: %d requests, %d bytes, %s", known, len(files), float64(got.Census.Bytes)/1e9, requests, bytes, time.Since(start))
	}
}

func BenchmarkHeadersOf400GB(b *testing.B) {
	config, index, files := llama405()
	var traffic int64
	for b.Loop() {
		b.StopTimer()
		c, sent := serve(b, config, index, files)
		b.StartTimer()
		src := New(Config{Client: c, ID: modelID, Revision: "main", Sizes: sizes(files, true)})
		if _, err := model.ReadCheckpoint(b.Context(), src, model.CheckpointConfig{Header: model.HeaderConfig{Prefetch: 8 << 10}}); err != nil {
			b.Fatal(err)
		}
		traffic = sent.Load()
	}
	b.ReportMetric(float64(traffic), "wire-B/op")
}

// TestServersThatLie reads one file from servers that are wrong in one way each.
func TestServersThatLie(t *testing.T) {
	file := header([]tensor{{"a.weight", "BF16", []int64{64, 64}, 8192}, {"b.weight", "BF16", []int64{64, 64}, 8192}})
	whole := make([]byte, file.size)
	copy(whole, file.head)
	part := func(w http.ResponseWriter, first, last, total int64, body []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, total))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body)
	}
	asked := func(r *http.Request) (first, last int64) {
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
		return first, min(last, file.size-1)
	}
	var n atomic.Int64
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		size  int64  // as listed
		want  string // of the error; "" is none
	}{
		"honest":         {func(w http.ResponseWriter, r *http.Request) { a, z := asked(r); part(w, a, z, file.size, whole[a:z+1]) }, file.size, ""},
		"ignores ranges": {func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(whole) }, file.size, ""},
		"another place": {func(w http.ResponseWriter, r *http.Request) {
			a, z := asked(r)
			part(w, a+1, z+1, file.size, whole[a:z+1])
		}, file.size, "not asked for"},
		"another total": {func(w http.ResponseWriter, r *http.Request) {
			a, z := asked(r)
			part(w, a, z, file.size+7, whole[a:z+1])
		}, file.size, "was said to have"},
		"total too small": {func(w http.ResponseWriter, r *http.Request) { a, z := asked(r); part(w, a, z, 3, whole[a:z+1]) }, file.size, "labelled"},
		"no range at all": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(206); _, _ = w.Write(whole[:100]) }, file.size, "not asked for"},
		"range of nonsense": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-")
			w.WriteHeader(206)
			_, _ = w.Write(whole[:100])
		}, file.size, "labelled"},
		"2^63 in the range": {func(w http.ResponseWriter, r *http.Request) {
			a, _ := asked(r)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-9223372036854775807/9223372036854775808", a))
			w.WriteHeader(206)
			_, _ = w.Write(whole[:10])
		}, file.size, "labelled"},
		"short body": {func(w http.ResponseWriter, r *http.Request) { a, z := asked(r); part(w, a, z, file.size, whole[a:a+9]) }, file.size, "came of the"},
		"empty body": {func(w http.ResponseWriter, r *http.Request) { a, z := asked(r); part(w, a, z, file.size, nil) }, file.size, ""},
		"cut off": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5000")
			a, z := asked(r)
			part(w, a, z, file.size, whole[a:a+9])
		}, file.size, "EOF"},
		"changes while read": {func(w http.ResponseWriter, r *http.Request) {
			a, z := asked(r)
			w.Header().Set("Etag", fmt.Sprintf(`"%d"`, n.Add(1)))
			part(w, a, z, file.size, whole[a:z+1])
		}, file.size, "changed while it was read"},
		"weak tags are no tags": {func(w http.ResponseWriter, r *http.Request) {
			a, z := asked(r)
			w.Header().Set("Etag", fmt.Sprintf(`W/"%d"`, n.Add(1)))
			part(w, a, z, file.size, whole[a:z+1])
		}, file.size, ""},
		"size not listed":   {func(w http.ResponseWriter, r *http.Request) { a, z := asked(r); part(w, a, z, file.size, whole[a:z+1]) }, 0, ""},
		"no size anywhere":  {func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(whole) }, 0, "how long the file is"},
		"listed as shorter": {func(w http.ResponseWriter, r *http.Request) { a, z := asked(r); part(w, a, z, file.size, whole[a:z+1]) }, file.size - 5, "was said to have"},
		"not there":         {http.NotFound, file.size, "file does not exist"},
		"gated":             {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, file.size, "does not hand out"},
		"a web page": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "<!DOCTYPE html>"+strings.Repeat(" ", 17000))
		}, file.size, "web page"},
		"unsatisfiable": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(416) }, file.size, "416"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tc.serve)
			defer srv.Close()
			src := New(Config{Client: client(t, srv.URL), ID: modelID, Revision: "main", Sizes: map[string]int64{"x.safetensors": tc.size}, Stream: true})
			err := readAll(t.Context(), src)
			if tc.want == "" && err != nil && name != "empty body" || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if name == "empty body" && err == nil {
				t.Error("an empty body was taken for data")
			}
		})
	}
}

// readAll reads the header and then both tensors.
func readAll(ctx context.Context, src *Source) error {
	f, err := src.Open(ctx, "x.safetensors")
	if err != nil {
		return err
	}
	h, err := model.ReadHeader(f, f.Size(), model.HeaderConfig{})
	if err != nil {
		return err
	}
	for _, t := range h.Tensors {
		if _, err := f.ReadAt(make([]byte, t.Bytes()), t.Begin); err != nil {
			return err
		}
	}
	return nil
}

func TestOpen(t *testing.T) {
	config, _, files := llama405()
	c, sent := serve(t, config, "", files)
	src := New(Config{Client: c, ID: modelID, Revision: "main", Sizes: map[string]int64{"config.json": 10}})
	for _, name := range []string{"", "..", "a/b", "a\\b", "a\x00"} {
		if _, err := src.Open(t.Context(), name); err == nil {
			t.Errorf("%q was opened", name)
		}
	}
	if _, err := src.Open(t.Context(), "other.json"); !errors.Is(err, fs.ErrNotExist) || sent.Load() != 0 {
		t.Errorf("what is not listed is not asked for: %v", err)
	}
	f, err := src.Open(t.Context(), "config.json")
	if err != nil || f.Size() != int64(len(config)) {
		t.Fatalf("config: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// replies is a client that gives one answer to everything.
type replies struct{ res fetch.Response }

func (r *replies) Get(context.Context, fetch.Request) (*fetch.Response, error) {
	res := r.res
	return &res, nil
}

func (r *replies) URL(fetch.Site, string, url.Values) (string, error) { return "https://hub/x", nil }

// FuzzRange holds that no answer makes a read return more than was asked for,
// or a length that its bytes do not have.
func FuzzRange(f *testing.F) {
	f.Add("bytes 0-9/100", `"a"`, []byte("0123456789"), int64(0), int64(10), int64(100))
	f.Add("bytes 5-14/*", `W/"a"`, []byte("0123456789"), int64(5), int64(10), int64(0))
	f.Add("bytes 0-9223372036854775807/9223372036854775807", "", []byte("x"), int64(0), int64(1), int64(1<<62))
	f.Add("", "", []byte{}, int64(0), int64(1), int64(1))
	f.Fuzz(func(t *testing.T, contentRange, tag string, body []byte, at, n, size int64) {
		if at < 0 || n < 1 || n > 1<<20 || size < 0 || at > 1<<62 {
			t.Skip()
		}
		r := &replies{fetch.Response{Status: 206, Header: http.Header{"Content-Range": {contentRange}, "Etag": {tag}}, Body: body}}
		src := New(Config{Client: r, ID: modelID, Revision: "main", Sizes: map[string]int64{"x.safetensors": size}})
		file, err := src.Open(t.Context(), "x.safetensors")
		if err != nil {
			return
		}
		b := make([]byte, n)
		got, err := file.ReadAt(b, at)
		if got < 0 || int64(got) > n || got < int(n) && err == nil || at+int64(got) > file.Size() && got > 0 {
			t.Fatalf("%d bytes of %d from %d in a file of %d, %v", got, n, at, file.Size(), err)
		}
	})
}

// TestHostileHeadersOverTheNetwork serves files whose headers lie. Each is told
// for what it is, with a few reads.
func TestHostileHeadersOverTheNetwork(t *testing.T) {
	head := func(n uint64, text string) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), text...) }
	of := func(text string) []byte { return head(uint64(len(text)), text) }
	for name, tc := range map[string]struct {
		head []byte
		size int64
		want string
	}{
		"a header of 100 MB":     {head(100_000_000, "{"), 1 << 40, "more than 33554432"},
		"a header of 2^63":       {head(1<<63, "{"), 1 << 40, "claims to be"},
		"longer than the file":   {head(5000, "{"), 100, "in a file of 100"},
		"overlapping tensors":    {of(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`), 1000, "inside of the tensor before"},
		"a gap":                  {of(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`), 1000, "belong to no tensor"},
		"sizes of 2^63":          {of(`{"a":{"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,8]}}`), 1000, "no possible size"},
		"offsets of 2^64":        {of(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}`), 1000, "larger than 2^63-1"},
		"a name twice":           {of(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}`), 1000, "twice"},
		"shape and offsets":      {of(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`), 1000, "offsets span 8"},
		"data missing":           {of(`{"a":{"dtype":"F32","shape":[100],"data_offsets":[0,400]}}`), 200, "the file has"},
		"a pickle":               {[]byte("PK\x03\x04 archive/data.pkl"), 1000, "pickle"},
		"a pickle without a zip": {[]byte("\x80\x02}q\x00"), 1000, "pickle"},
	} {
		t.Run(name, func(t *testing.T) {
			file := &sparse{head: tc.head, size: tc.size}
			c, sent := serve(t, "", "", map[string]*sparse{"x.safetensors": file})
			src := New(Config{Client: c, ID: modelID, Revision: "main", Sizes: map[string]int64{"x.safetensors": tc.size}})
			f, err := src.Open(t.Context(), "x.safetensors")
			if err != nil {
				t.Fatal(err)
			}
			_, err = model.ReadHeader(f, f.Size(), model.HeaderConfig{Prefetch: 8 << 10})
			var bad *model.BadHeaderError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if sent.Load() > 8<<10 {
				t.Errorf("%d bytes were sent", sent.Load())
			}
		})
	}
}
