#include "textflag.h"

DATA expC<>+0(SB)/4, $0xC2AE0000  // -87
DATA expC<>+4(SB)/4, $0x3FB8AA3B  // log2(e)
DATA expC<>+8(SB)/4, $0x3F318000  // 0.693359375
DATA expC<>+12(SB)/4, $0xB95E8083 // -2.12194440e-4
DATA expC<>+16(SB)/4, $0x39506967 // 1.9875691500e-4
DATA expC<>+20(SB)/4, $0x3AB743CE // 1.3981999507e-3
DATA expC<>+24(SB)/4, $0x3C088908 // 8.3334519073e-3
DATA expC<>+28(SB)/4, $0x3D2AA9C1 // 4.1665795894e-2
DATA expC<>+32(SB)/4, $0x3E2AAAAA // 1.6666665459e-1
DATA expC<>+36(SB)/4, $0x3F000000 // 5.0000001201e-1
DATA expC<>+40(SB)/4, $0x3F800000 // 1
DATA expC<>+44(SB)/4, $0x0000007F // 127
DATA expC<>+48(SB)/4, $0x80000000 // the sign
GLOBL expC<>(SB), RODATA, $52

// EXP takes Y0, at most 0, to e^Y0 in Y3; it uses Y1 to Y4. Constants: Y5 is -87,
// Y6 log2(e), Y7 and Y8 the parts of ln(2), Y9 to Y14 the polynomial, Y15 is 1.
#define EXP \
	VCMPPS       $1, Y5, Y0, Y4    \ // below -87
	VMULPS       Y6, Y0, Y1        \
	VROUNDPS     $0, Y1, Y1        \
	VMOVAPS      Y0, Y2            \
	VFNMADD231PS Y7, Y1, Y2        \
	VFNMADD231PS Y8, Y1, Y2        \ // the rest
	VMOVAPS      Y9, Y3            \
	VFMADD213PS  Y10, Y2, Y3       \
	VFMADD213PS  Y11, Y2, Y3       \
	VFMADD213PS  Y12, Y2, Y3       \
	VFMADD213PS  Y13, Y2, Y3       \
	VFMADD213PS  Y14, Y2, Y3       \
	VMULPS       Y2, Y3, Y3        \
	VFMADD213PS  Y2, Y2, Y3        \
	VADDPS       Y15, Y3, Y3       \
	VCVTPS2DQ    Y1, Y1            \
	VPBROADCASTD expC<>+44(SB), Y2 \
	VPADDD       Y2, Y1, Y1        \
	VPSLLD       $23, Y1, Y1       \
	VMULPS       Y1, Y3, Y3        \
	VANDNPS      Y3, Y4, Y3

#define CONSTANTS \
	VBROADCASTSS expC<>+0(SB), Y5   \
	VBROADCASTSS expC<>+4(SB), Y6   \
	VBROADCASTSS expC<>+8(SB), Y7   \
	VBROADCASTSS expC<>+12(SB), Y8  \
	VBROADCASTSS expC<>+16(SB), Y9  \
	VBROADCASTSS expC<>+20(SB), Y10 \
	VBROADCASTSS expC<>+24(SB), Y11 \
	VBROADCASTSS expC<>+28(SB), Y12 \
	VBROADCASTSS expC<>+32(SB), Y13 \
	VBROADCASTSS expC<>+36(SB), Y14 \
	VBROADCASTSS expC<>+40(SB), Y15

// func expRow(x *float32, n int, top, scale float32)
TEXT ·expRow(SB), NOSPLIT, $0-24
	MOVQ x+0(FP), DI
	MOVQ n+8(FP), CX
	CONSTANTS
loope:
	VMOVUPS (DI), Y0
	VBROADCASTSS top+16(FP), Y1
	VSUBPS Y1, Y0, Y0
	VBROADCASTSS scale+20(FP), Y1
	VMULPS Y1, Y0, Y0
	EXP
	VMOVUPS Y3, (DI)
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loope
	VZEROUPPER
	RET

// func siluRow(x *float32, n int)
//
// x/(1+e^-x) without a large power: with e = e^-|x|, the quotient of x, or of
// x·e where x is negative, by 1+e.
TEXT ·siluRow(SB), NOSPLIT, $0-16
	MOVQ x+0(FP), DI
	MOVQ n+8(FP), CX
	CONSTANTS
loops:
	VMOVUPS (DI), Y0
	VBROADCASTSS expC<>+48(SB), Y1
	VORPS Y1, Y0, Y0
	EXP
	VMOVUPS (DI), Y0
	VADDPS Y15, Y3, Y1
	VMULPS Y0, Y3, Y2
	VBLENDVPS Y0, Y2, Y0, Y0
	VDIVPS Y1, Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loops
	VZEROUPPER
	RET
