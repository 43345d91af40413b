//go:build !amd64

package kernel

const accelerated = false

func decodeBF16(*float32, *byte, int)                   { panic("no assembly") }
func decodeE4M3(*float32, *byte, int)                   { panic("no assembly") }
func decodeNVFP4(*float32, *byte, *byte, *float32, int) { panic("no assembly") }
func roundBF16(*float32, int)                           { panic("no assembly") }
func dotFMA(*float32, *float32, int) float32            { panic("no assembly") }
func dot4x1(*float32, *float32, int, *float32)          { panic("no assembly") }
func dot4x3(*float32, *float32, int, *float32)          { panic("no assembly") }
func dotBF16x4(*byte, int, *float32, int, *float32)     { panic("no assembly") }
func mixRows(*float32, *float32, *float32, int, int)    { panic("no assembly") }

func expRow(*float32, int, float32, float32) { panic("no assembly") }
func siluRow(*float32, int)                  { panic("no assembly") }
