# A guest that fills memory, then goes on writing to a range of it and counts on its serial console.
#
# It is a Multiboot kernel (QEMU's -kernel loads it): 32-bit protected mode, no paging, linked at 1 MiB. The rig
# assembles it with --defsym for each of these, in bytes unless said otherwise:
#   FILL_START FILL_END    range filled once at start
#   FILL_MODE              0 nothing, 1 random, 2 compressible, 3 by page index mod 4: zero, random,
#                          compressible, a few bytes; 4 one page of 64 random, the others zero
#   DIRTY_START DIRTY_END  range written over and over
#   PAGES_PER_TICK         pages written per timer tick (1/1000 s); 0: none
#   TICKS_PER_LINE         ticks between two lines on the console
#   DISK_SECTORS           with each line the next of so many sectors of the first IDE disk gets the line's number in
#                          all its words; 0: there is no disk
#
# The writer checks itself: pass g stores g at byte 8 of each page and expects to find g - 1 there, so a page
# that arrives at a destination with another pass's content is counted as bad. Every 16th page is filled with
# zeros in odd passes and with random words in even ones, which makes pages become zero again.
# CR0.WP is toggled at every tick because TCG before QEMU 9.0 misses dirty pages unless the TLB is flushed.

        .set    MULTIBOOT_MAGIC, 0x1BADB002
        .set    COM1, 0x3f8
        .set    PAGE, 4096
        .set    PIT_DIVISOR, 1193               # 1.193182 MHz / 1193 = 1000 ticks a second

        .section .text
        .code32
        .align  4
        .long   MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC

        .globl  _start
_start:
        cli
        cld
        movl    $stack_top, %esp
        lgdt    gdt_pointer
        ljmp    $8, $flat
flat:   movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss

        movw    $COM1 + 3, %dx                  # 8 data bits, no parity
        movb    $3, %al
        outb    %al, %dx

        movl    $text_started, %esi
        call    print
        call    fill
        movl    $text_filled, %esi
        call    print

        # Interrupts: the timer alone, as vector 0x20.
        movl    $timer, %eax
        movw    %ax, idt + 0x20 * 8
        movw    $8, idt + 0x20 * 8 + 2
        movw    $0x8e00, idt + 0x20 * 8 + 4
        shrl    $16, %eax
        movw    %ax, idt + 0x20 * 8 + 6
        lidt    idt_pointer
        movb    $0x11, %al
        outb    %al, $0x20
        outb    %al, $0xa0
        movb    $0x20, %al
        outb    %al, $0x21
        movb    $0x28, %al
        outb    %al, $0xa1
        movb    $4, %al
        outb    %al, $0x21
        movb    $2, %al
        outb    %al, $0xa1
        movb    $1, %al
        outb    %al, $0x21
        outb    %al, $0xa1
        movb    $0xfe, %al
        outb    %al, $0x21
        movb    $0xff, %al
        outb    %al, $0xa1
        movb    $0x34, %al
        outb    %al, $0x43
        movb    $(PIT_DIVISOR & 255), %al
        outb    %al, $0x40
        movb    $(PIT_DIVISOR >> 8), %al
        outb    %al, $0x40
        sti

tick:   hlt
        movl    %cr0, %eax
        xorl    $0x10000, %eax
        movl    %eax, %cr0
        movl    $PAGES_PER_TICK, %ecx
        jecxz   2f
1:      pushl   %ecx
        call    dirty_page
        popl    %ecx
        loop    1b
2:      decl    ticks_left
        jnz     tick
        movl    $TICKS_PER_LINE, ticks_left
        incl    lines
        movl    $text_count, %esi
        call    print
        movl    lines, %ebx
        call    print_hex
        movl    $text_pass, %esi
        call    print
        movl    pass, %ebx
        call    print_hex
        movl    $text_bad, %esi
        call    print
        movl    bad, %ebx
        call    print_hex
        movl    $text_newline, %esi
        call    print
        call    write_disk
        jmp     tick

timer:  pushl   %eax
        movb    $0x20, %al
        outb    %al, $0x20
        popl    %eax
        iret

# Writes the page under the cursor and moves the cursor on.
dirty_page:
        movl    cursor, %edi
        movl    pass, %eax
        leal    -1(%eax), %ebx                  # what the previous pass left at byte 8
        movl    %edi, %edx
        shrl    $12, %edx
        notl    %edx
        andl    $15, %edx                       # zero for every 16th page
        jnz     1f
        testl   $1, %ebx
        jz      1f
        xorl    %ebx, %ebx                      # an odd pass left it zero
1:      cmpl    $1, %eax
        je      2f                              # the first pass finds the fill, not a stamp
        cmpl    8(%edi), %ebx
        je      2f
        incl    bad
2:      testl   %edx, %edx
        jnz     4f
        testl   $1, %eax
        jz      3f
        pushl   %edi
        xorl    %eax, %eax
        movl    $PAGE / 4, %ecx
        rep stosl
        popl    %edi
        jmp     5f
3:      movl    %eax, %ebp
        call    fill_random
        movl    pass, %eax
        movl    %eax, 8(%edi)
        jmp     5f
4:      movl    %eax, 8(%edi)
        imull   $36, %eax, %ecx                 # another place in each pass, never byte 8
        andl    $0xff0, %ecx
        movl    %eax, 4(%edi, %ecx)
5:      addl    $PAGE, %edi
        cmpl    $DIRTY_END, %edi
        jb      6f
        movl    $DIRTY_START, %edi
        incl    pass
6:      movl    %edi, cursor
        ret

fill:
        movl    $FILL_START, %edi
1:      cmpl    $FILL_END, %edi
        jae     9f
        movl    $FILL_MODE, %eax
        movl    %edi, %edx
        shrl    $12, %edx
        cmpl    $1, %eax
        je      3f
        cmpl    $2, %eax
        je      4f
        cmpl    $3, %eax
        je      2f
        cmpl    $4, %eax
        jne     8f
        andl    $63, %edx
        jz      3f
        jmp     8f
2:      andl    $3, %edx
        jz      8f
        cmpl    $1, %edx
        je      3f
        cmpl    $2, %edx
        je      4f
        movl    %edi, 0x7f0(%edi)
        jmp     8f
3:      xorl    %ebp, %ebp
        call    fill_random
        jmp     8f
4:      call    fill_compressible
8:      addl    $PAGE, %edi
        jmp     1b
9:      ret

# Fills the page at %edi with a xorshift32 sequence seeded by its address and %ebp. Keeps %edi.
fill_random:
        pushl   %edi
        movl    %edi, %eax
        imull   $0x9e3779b1, %ebp, %ecx
        xorl    %ecx, %eax
        xorl    $0x2545f491, %eax
        jnz     1f
        incl    %eax
1:      movl    $PAGE / 4, %ecx
2:      movl    %eax, %edx
        shll    $13, %edx
        xorl    %edx, %eax
        movl    %eax, %edx
        shrl    $17, %edx
        xorl    %edx, %eax
        movl    %eax, %edx
        shll    $5, %edx
        xorl    %edx, %eax
        stosl
        loop    2b
        popl    %edi
        ret

# Fills the page at %edi with words of which only a few bits change. Keeps %edi.
fill_compressible:
        pushl   %edi
        movl    %edi, %edx
        movl    $PAGE / 4, %ecx
1:      movl    %ecx, %eax
        shrl    $3, %eax
        addl    %edx, %eax
        stosl
        loop    1b
        popl    %edi
        ret

# ATA-4, PIO data-out, 28-bit addresses. What the disk refuses is counted as a bad page.
write_disk:
        movl    $DISK_SECTORS, %ecx
        testl   %ecx, %ecx
        jz      9f
        movl    lines, %eax
        xorl    %edx, %edx
        divl    %ecx
        movl    %edx, %ebx                      # the sector
        movw    $0x3f6, %dx                     # no interrupts
        movb    $2, %al
        outb    %al, %dx
        movw    $0x1f6, %dx
        movl    %ebx, %eax
        shrl    $24, %eax
        orb     $0xe0, %al
        outb    %al, %dx
        movw    $0x1f2, %dx
        movb    $1, %al
        outb    %al, %dx
        movl    %ebx, %eax
        movw    $0x1f3, %dx
        outb    %al, %dx
        shrl    $8, %eax
        movw    $0x1f4, %dx
        outb    %al, %dx
        shrl    $8, %eax
        movw    $0x1f5, %dx
        outb    %al, %dx
        movw    $0x1f7, %dx
        movb    $0x30, %al                      # WRITE SECTORS
        outb    %al, %dx
1:      inb     %dx, %al
        testb   $0x80, %al                      # busy
        jnz     1b
        testb   $8, %al                         # wants data
        jz      8f
        movw    $0x1f0, %dx
        movl    lines, %eax
        movl    $128, %ecx
2:      outl    %eax, %dx
        loop    2b
        movw    $0x1f7, %dx
3:      inb     %dx, %al
        testb   $0x80, %al
        jnz     3b
        testb   $0x21, %al                      # error, fault
        jz      9f
8:      incl    bad
9:      ret

# Prints the string at %esi, which ends in a zero byte.
print:  lodsb
        testb   %al, %al
        jz      1f
        call    print_byte
        jmp     print
1:      ret

print_hex:                                      # %ebx as 8 hexadecimal digits
        movl    $8, %ecx
1:      roll    $4, %ebx
        movl    %ebx, %eax
        andl    $15, %eax
        movb    digits(%eax), %al
        call    print_byte
        loop    1b
        ret

print_byte:
        movb    %al, %ah
        movw    $COM1 + 5, %dx
1:      inb     %dx, %al
        testb   $0x20, %al                      # transmitter empty
        jz      1b
        movb    %ah, %al
        movw    $COM1, %dx
        outb    %al, %dx
        ret

text_started:   .asciz "started\n"
text_filled:    .asciz "filled\n"
text_count:     .asciz "count "
text_pass:      .asciz " pass "
text_bad:       .asciz " bad "
text_newline:   .asciz "\n"
digits:         .ascii "0123456789abcdef"

        .align  8
gdt:    .quad   0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
idt_pointer:
        .word   0x21 * 8 - 1
        .long   idt
        .align  4
cursor: .long   DIRTY_START
pass:   .long   1
bad:    .long   0
lines:  .long   0
ticks_left:     .long TICKS_PER_LINE
        .align  8
idt:    .fill   0x21, 8, 0
        .fill   1024, 1, 0
stack_top:
