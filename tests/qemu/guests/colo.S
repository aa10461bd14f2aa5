# A 64-bit guest in a firmware image of 64 KiB: hosts whose KVM emulates 16- and 32-bit code slowly, or wrongly,
# run it at once. No BIOS, no interrupts: from the reset vector a few instructions lead to long mode.
#
# It fills FILL_START..FILL_END once (every fourth page with pseudo-random words, the others stay zero), prints
# "filled", then, pass after pass, writes DIRTY_START..DIRTY_END and prints a line as busy.S does:
#
#     count XXXXXXXX pass XXXXXXXX bad XXXXXXXX
#
# Pass g expects g - 1 at byte 8 of each page and stores g there; a page of another pass counts as bad. Every 16th
# page is cleared behind byte 16 in odd passes and filled with words of the pass in even ones. Every fifth
# pass goes over the whole range; the others only over its first eighth, so that checkpoints differ in size.
# TICKS: millions of TSC cycles between two passes.

        .set    COM1, 0x3f8
        .set    PAGE, 4096
        .set    TABLES, 0x10000                 # page tables: PML4, PDPT, 4 page directories
        .set    ROM, 0xffff0000

        .section .text
        .code32
        .globl  _start
_start:
protected:
        movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x8000, %esp

        # 4 GiB, mapped to themselves by pages of 2 MiB.
        movl    $TABLES, %edi
        xorl    %eax, %eax
        movl    $6 * PAGE / 4, %ecx
        cld
        rep stosl
        movl    $TABLES + PAGE + 3, TABLES
        movl    $TABLES + 2 * PAGE + 3, TABLES + PAGE
        movl    $TABLES + 3 * PAGE + 3, TABLES + PAGE + 8
        movl    $TABLES + 4 * PAGE + 3, TABLES + PAGE + 16
        movl    $TABLES + 5 * PAGE + 3, TABLES + PAGE + 24
        movl    $TABLES + 2 * PAGE, %edi
        movl    $0x83, %eax                     # present, writable, large
        movl    $2048, %ecx
1:      movl    %eax, (%edi)
        addl    $8, %edi
        addl    $0x200000, %eax
        loop    1b

        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orl     $0x20, %eax                     # PAE
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx               # EFER
        rdmsr
        orl     $0x100, %eax                    # LME
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000001, %eax
        movl    %eax, %cr0
        ljmpl   $24, $long_mode

        .code64
long_mode:
        xorl    %eax, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $COM1 + 3, %dx                  # 8 data bits, no parity
        movb    $3, %al
        outb    %al, %dx

        movl    $FILL_START, %edi
        movl    $0x2545f491, %eax
2:      movl    $PAGE / 8, %ecx
3:      imulq   $0x5851f42d, %rax, %rax
        addq    $0x14057b7f, %rax
        stosq
        loop    3b
        addl    $3 * PAGE, %edi
        cmpl    $FILL_END, %edi
        jb      2b
        movl    $text_filled, %esi
        call    print

        xorl    %ebp, %ebp                      # pass
        xorl    %ebx, %ebx                      # bad
        movl    $1, %r12d                       # of the range below, passes of its second part
pass:   incl    %ebp
        movl    $DIRTY_START, %edi
        movl    $DIRTY_START + (DIRTY_END - DIRTY_START) / 8, %r8d
        movl    %ebp, %r9d
        decl    %r9d
        call    write
        movl    %ebp, %eax
        xorl    %edx, %edx
        movl    $5, %ecx
        divl    %ecx
        testl   %edx, %edx
        jnz     4f
        movl    %r8d, %edi
        movl    $DIRTY_END, %r8d
        leal    -5(%rbp), %r9d
        call    write
4:      movl    $text_count, %esi
        call    print
        movl    %ebp, %r10d
        call    hex
        movl    $text_pass, %esi
        call    print
        movl    %ebp, %r10d
        call    hex
        movl    $text_bad, %esi
        call    print
        movl    %ebx, %r10d
        call    hex
        movl    $text_end, %esi
        call    print
        rdtsc
        movl    %eax, %r11d
5:      pause
        rdtsc
        subl    %r11d, %eax
        cmpl    $TICKS * 1000000, %eax
        jb      5b
        jmp     pass

# Pages edi..r8d: expect r9d, store ebp. edi ends at r8d.
write:  movl    8(%rdi), %eax
        cmpl    %eax, %r9d
        je      6f
        incl    %ebx
6:      movl    %ebp, 8(%rdi)
        testl   $0xf000, %edi
        jnz     8f
        movl    %edi, %r13d
        addl    $16, %edi
        xorl    %eax, %eax
        movl    $(PAGE - 16) / 8, %ecx
        testl   $1, %ebp
        jnz     7f
        movl    %ebp, %eax
        imulq   $0x2545f491, %rax, %rax
7:      stosq
        loop    7b
        movl    %r13d, %edi
8:      addl    $PAGE, %edi
        cmpl    %r8d, %edi
        jb      write
        ret

print:  lodsb
        testb   %al, %al
        jz      9f
        call    put
        jmp     print
9:      ret

hex:    movl    $8, %ecx
1:      roll    $4, %r10d
        movl    %r10d, %eax
        andl    $15, %eax
        cmpl    $10, %eax
        jb      2f
        addl    $'a' - '0' - 10, %eax
2:      addl    $'0', %eax
        call    put
        loop    1b
        ret

put:    movb    %al, %ah
        movw    $COM1 + 5, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        movw    $COM1, %dx
        movb    %ah, %al
        outb    %al, %dx
        ret

text_filled:    .asciz "filled\r\n"
text_count:     .asciz "count "
text_pass:      .asciz " pass "
text_bad:       .asciz " bad "
text_end:       .asciz "\r\n"

        .align  8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff              # 8: 32-bit code
        .quad   0x00cf93000000ffff              # 16: data
        .quad   0x00af9b000000ffff              # 24: 64-bit code
gdt_pointer:
        .word   31
        .long   gdt

        .org    0xff00
        .code16
real_mode:
        cli
        lgdtl   %cs:(gdt_pointer - _start)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $protected

        .org    0xfff0
        jmp     real_mode
        .org    0xffff
        .byte   0
