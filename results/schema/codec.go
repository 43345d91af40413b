package schema

import (
	"io"
	"sync"

	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/klauspost/compress/zstd"
)

// maxPage bounds what one compressed page may unfold to. Pages are cut near
// pageBytes and batchBytes; only a single longer text makes a larger one.
const maxPage = 1 << 30

// useCodec replaces the library's zstd codec, which builds a new encoder for
// every page (a third of the time of writing) and decodes without bound.
var useCodec = sync.OnceFunc(func() { compress.RegisterCodec(compress.Codecs.Zstd, newCodec()) })

// codec is zstd with encoders and decoders that are used again; it is safe for
// concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() *codec {
	// The options are constants that the package accepts.
	enc, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithZeroFrames(true), zstd.WithWindowSize(1<<20))
	dec, _ := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxPage))
	return &codec{enc, dec}
}

func (c *codec) NewReader(r io.Reader) io.ReadCloser {
	dec, _ := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxPage))
	return dec.IOReadCloser()
}

func (c *codec) NewWriter(w io.Writer) io.WriteCloser {
	enc, _ := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	return enc
}

func (c *codec) NewWriterLevel(w io.Writer, level int) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)))
}

func (c *codec) Encode(dst, src []byte) []byte { return c.enc.EncodeAll(src, dst[:0]) }

// EncodeLevel ignores level: all files are written at the fastest one.
func (c *codec) EncodeLevel(dst, src []byte, _ int) []byte { return c.Encode(dst, src) }

// Decode panics on damaged data, as the library expects; [guard] recovers.
func (c *codec) Decode(dst, src []byte) []byte {
	out, err := c.dec.DecodeAll(src, dst[:0])
	if err != nil {
		panic(err)
	}
	return out
}

// CompressBound is ZSTD_COMPRESSBOUND of zstd.h.
func (c *codec) CompressBound(n int64) int64 {
	const small = 128 << 10
	if n < small {
		return n + n>>8 + (small-n)>>11
	}
	return n + n>>8
}
